{{/* The image, by digest where there is one. */}}
{{- define "culvert.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels of every object: dict "root" $ "component" "agent". */}}
{{- define "culvert.labels" -}}
{{ include "culvert.selector" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: culvert
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "culvert.selector" -}}
app.kubernetes.io/name: culvert-{{ .component }}
{{- end -}}

{{/* Prometheus' annotations for pods: the port as argument. */}}
{{- define "culvert.scrape" -}}
prometheus.io/scrape: 'true'
prometheus.io/port: {{ . | quote }}
prometheus.io/path: /metrics
{{- end -}}

{{- define "culvert.rootNamespace" -}}
{{ .Values.meshConfig.rootNamespace | default .Release.Namespace }}
{{- end -}}

{{/* Options that agent and controller share. */}}
{{- define "culvert.meshArgs" -}}
{{- $mesh := .Values.meshConfig -}}
- --trust-domain={{ $mesh.trustDomain }}
{{- with $mesh.trustDomainAliases }}
- --trust-domain-aliases={{ join "," . }}
{{- end }}
- --cluster-domain={{ $mesh.clusterDomain }}
- --cluster-id={{ $mesh.clusterId }}
{{- with $mesh.network }}
- --network={{ . }}
{{- end }}
{{- end -}}

{{/* A Job of a hook: dict "root" $ "name" "install" "program" "install" "args" (list …). */}}
{{- define "culvert.hookJob" -}}
{{- $root := .root -}}
spec:
  backoffLimit: {{ .backoffLimit }}
  activeDeadlineSeconds: {{ .deadlineSeconds }}
  template:
    metadata:
      labels:
        {{- include "culvert.labels" (dict "root" $root "component" .name) | nindent 8 }}
        istio.io/dataplane-mode: none
    spec:
      serviceAccountName: culvert-{{ .name }}
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      restartPolicy: Never
      enableServiceLinks: false
      # A pod with a network of its own is held where the node's agent is gone, which is no reason not to mend or remove the mesh.
      hostNetwork: true
      priorityClassName: {{ $root.Values.controller.priorityClassName }}
      {{- with $root.Values.controller.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      # Never those of a node that does not answer: it would wait there for ever.
      tolerations:
        - { key: culvert/agent-not-ready, operator: Exists }
        - { key: node-role.kubernetes.io/control-plane, operator: Exists }
        {{- with $root.Values.controller.tolerations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: { type: RuntimeDefault }
      containers:
        - name: {{ .name }}
          image: {{ include "culvert.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [node, dist/control/{{ .name }}.js]
          args:
            - --namespace={{ $root.Release.Namespace }}
            {{- range .args }}
            - {{ . }}
            {{- end }}
          resources:
            requests: { cpu: 50m, memory: 128Mi }
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
{{- end -}}

{{/* Annotations of a hook's objects: dict "hooks" "pre-install" "weight" "0". */}}
{{- define "culvert.hook" -}}
helm.sh/hook: {{ .hooks }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- define "culvert.webhookName" -}}
culvert-validation-{{ .Release.Namespace }}
{{- end -}}
