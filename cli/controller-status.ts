import type { ManifestProblem } from '../mesh/manifests/types.js';

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
  readonly problems: readonly ManifestProblem[];
  /** What is worth knowing, though nothing is wrong. */
  readonly notices: readonly ManifestProblem[];
  /** control/model/report.ts. */
  readonly reports: readonly {
    readonly object: string;
    readonly field: string;
    readonly reason: string;
    readonly effect: string;
  }[];
  /** What a person should look at (control/writeback/types.ts); none where objects come from files. */
  readonly findings: readonly { readonly object: string; readonly reason: string; readonly note: string }[];
}

/** For people: `file:line: Kind name: field: reason: effect`. */
export function problemText(problem: ManifestProblem): string {
  const { field, reason, effect } = problem;
  return [placeOf(problem), objectOf(problem), field, reason, effect]
    .filter((part) => part !== '')
    .join(': ');
}

export function placeOf({ file, line }: ManifestProblem): string {
  return line > 0 ? `${file}:${line}` : file;
}

export function objectOf({ kind, name }: ManifestProblem): string {
  return [kind, name].filter((part) => part !== '').join(' ');
}

/** `istio.workload.Address` of a type URL is `Address`. */
export function shortType(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('.') + 1);
}
