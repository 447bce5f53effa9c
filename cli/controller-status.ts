/** control/xds/types.ts, ClientStatus. */
export interface ControllerClient {
  readonly node: string | null;
  readonly connectedMs: number;
  readonly types: readonly {
    readonly typeUrl: string;
    readonly state: string;
    readonly lastNack: string | null;
  }[];
}

/** The controller's /status (control/monitoring). */
export interface ControllerStatus {
  readonly pending: string | null;
  readonly agents: readonly ControllerClient[];
  readonly resources: Readonly<Record<string, number>>;
  /** control/model/report.ts. */
  readonly reports: readonly unknown[];
  readonly problems: readonly {
    readonly file: string;
    readonly line: number;
    readonly name: string;
    readonly reason: string;
  }[];
  /** NetworkPolicies that keep the mesh from a pod; absent: not on Kubernetes. */
  readonly networkPolicies?: readonly string[];
}

/** For people. */
export function problemText({ file, line, name, reason }: ControllerStatus['problems'][number]): string {
  return `${file}:${line} ${name}: ${reason}`;
}

/** `istio.workload.Address` of a type URL is `Address`. */
export function shortType(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('.') + 1);
}
