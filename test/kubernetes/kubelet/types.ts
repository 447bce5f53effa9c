import type { KubeObject } from '../api.js';

/** What a kubelet process is told at its start: a JSON file, its only argument. */
export interface KubeletConfig {
  readonly node: string;
  /** Place of the node in the lab's address plan. */
  readonly index: number;
  readonly ips: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Name in /run/netns; pods get `<netns>-k<n>`. */
  readonly netns: string;
  /** The node's root cgroup. */
  readonly cgroup: string;
  readonly cgroupDriver: 'systemd' | 'cgroupfs';
  /** Folder for everything of the node. */
  readonly stateDir: string;
  /** What pods find as /sys/fs/bpf when they mount that of their host. */
  readonly bpffsDir: string;
  readonly url: string;
  readonly caFile: string;
  /** Of system:node:<name>; also serves 10250. */
  readonly credentials: { readonly certificateFile: string; readonly keyFile: string };
  /** Of system:kube-proxy. */
  readonly proxyCredentials: { readonly certificateFile: string; readonly keyFile: string };
  readonly images: ImageTable;
  /** Whether an address that a pod gave back goes to the very next pod; otherwise to the last in turn. */
  readonly reuseAddresses: boolean;
  /** Seconds that this node's clock is off; containers and kubelet see it. */
  readonly clockSkewSeconds: number;
}

/** By repository without registry and tag (`library/` left out): what `FROM scratch` would hold. */
export type ImageTable = Readonly<Record<string, Image>>;

export interface Image {
  /** Command used where the container names none. */
  readonly entrypoint: readonly string[];
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly workingDir?: string;
}

export interface KeyRef {
  readonly name: string;
  readonly key: string;
  readonly optional?: boolean;
}

export interface EnvVar {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: {
    readonly fieldRef?: { readonly fieldPath: string };
    readonly resourceFieldRef?: {
      readonly resource: string;
      readonly containerName?: string;
      readonly divisor?: string;
    };
    readonly configMapKeyRef?: KeyRef;
    readonly secretKeyRef?: KeyRef;
  };
}

export interface EnvFrom {
  readonly prefix?: string;
  readonly configMapRef?: { readonly name: string; readonly optional?: boolean };
  readonly secretRef?: { readonly name: string; readonly optional?: boolean };
}

export interface HttpGet {
  readonly path?: string;
  readonly port: number | string;
  readonly host?: string;
  readonly scheme?: string;
  readonly httpHeaders?: readonly { readonly name: string; readonly value: string }[];
}

export interface Handler {
  readonly exec?: { readonly command: readonly string[] };
  readonly httpGet?: HttpGet;
  readonly tcpSocket?: { readonly port: number | string; readonly host?: string };
  readonly sleep?: { readonly seconds: number };
  readonly grpc?: { readonly port: number; readonly service?: string };
}

export interface Probe extends Handler {
  readonly initialDelaySeconds?: number;
  readonly timeoutSeconds?: number;
  readonly periodSeconds?: number;
  readonly successThreshold?: number;
  readonly failureThreshold?: number;
}

export interface SecurityContext {
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  readonly runAsNonRoot?: boolean;
  readonly privileged?: boolean;
  readonly readOnlyRootFilesystem?: boolean;
  readonly allowPrivilegeEscalation?: boolean;
  readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] };
  readonly fsGroup?: number;
  readonly supplementalGroups?: readonly number[];
}

export interface VolumeMount {
  readonly name: string;
  readonly mountPath: string;
  readonly subPath?: string;
  readonly readOnly?: boolean;
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly workingDir?: string;
  readonly env?: readonly EnvVar[];
  readonly envFrom?: readonly EnvFrom[];
  readonly ports?: readonly { readonly name?: string; readonly containerPort: number }[];
  readonly resources?: {
    readonly requests?: Readonly<Record<string, string>>;
    readonly limits?: Readonly<Record<string, string>>;
  };
  readonly volumeMounts?: readonly VolumeMount[];
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly startupProbe?: Probe;
  readonly lifecycle?: { readonly preStop?: Handler; readonly postStart?: Handler };
  readonly securityContext?: SecurityContext;
  /** Of an init container: Always makes it a sidecar. */
  readonly restartPolicy?: 'Always';
}

export interface KeyToPath {
  readonly key: string;
  readonly path: string;
  readonly mode?: number;
}

export interface FileSource {
  readonly items?: readonly KeyToPath[];
  readonly optional?: boolean;
}

export interface DownwardItem {
  readonly path: string;
  readonly mode?: number;
  readonly fieldRef?: { readonly fieldPath: string };
  readonly resourceFieldRef?: {
    readonly resource: string;
    readonly containerName?: string;
    readonly divisor?: string;
  };
}

export interface Volume {
  readonly name: string;
  readonly emptyDir?: object;
  readonly hostPath?: { readonly path: string; readonly type?: string };
  readonly secret?: FileSource & { readonly secretName: string; readonly defaultMode?: number };
  readonly configMap?: FileSource & { readonly name: string; readonly defaultMode?: number };
  readonly downwardAPI?: { readonly items?: readonly DownwardItem[]; readonly defaultMode?: number };
  readonly projected?: {
    readonly defaultMode?: number;
    readonly sources?: readonly {
      readonly secret?: FileSource & { readonly name: string };
      readonly configMap?: FileSource & { readonly name: string };
      readonly downwardAPI?: { readonly items?: readonly DownwardItem[] };
      readonly serviceAccountToken?: {
        readonly audience?: string;
        readonly expirationSeconds?: number;
        readonly path: string;
      };
    }[];
  };
}

export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly lastTransitionTime?: string | null;
  readonly reason?: string;
  readonly message?: string;
}

/** The parts of a Pod that a kubelet looks at. */
export interface Pod extends KubeObject {
  readonly spec: {
    readonly nodeName?: string;
    readonly containers: readonly Container[];
    readonly initContainers?: readonly Container[];
    readonly volumes?: readonly Volume[];
    readonly restartPolicy?: 'Always' | 'OnFailure' | 'Never';
    readonly hostNetwork?: boolean;
    readonly hostPID?: boolean;
    readonly hostname?: string;
    readonly subdomain?: string;
    readonly serviceAccountName?: string;
    readonly terminationGracePeriodSeconds?: number;
    readonly dnsPolicy?: string;
    readonly dnsConfig?: {
      readonly nameservers?: readonly string[];
      readonly searches?: readonly string[];
      readonly options?: readonly { readonly name: string; readonly value?: string }[];
    };
    readonly hostAliases?: readonly { readonly ip: string; readonly hostnames?: readonly string[] }[];
    readonly securityContext?: SecurityContext;
    readonly readinessGates?: readonly { readonly conditionType: string }[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly Condition[];
    readonly qosClass?: string;
  };
}

/** An error that is the pod's: what its status and an Event say. */
export class PodError extends Error {
  readonly reason: string;

  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}
