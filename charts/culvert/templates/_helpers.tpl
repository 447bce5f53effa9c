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

{{- define "culvert.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- end -}}
