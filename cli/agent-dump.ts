import type { Exclusions, ManifestProblem } from '../mesh/manifests/types.js';
import type { StoreUpdate, Workload } from '../mesh/store/index.js';
import type { AdminClient } from './admin-client.js';

/** The part of an agent's /config_dump that commands read, as JSON leaves it; test/netns/culvertctl.test.ts holds it to a real agent. */
export interface AgentDump {
  readonly options: {
    readonly node: string;
    readonly network: string;
    readonly controller: string;
    readonly trustDomain: string;
    readonly trustDomainAliases: readonly string[];
    readonly cgroupRoot: string;
    readonly bpffs: string;
  };
  readonly workloads: StoreUpdate;
  readonly xds: {
    readonly controller: string;
    readonly isConnected: boolean;
    readonly isReady: boolean;
    readonly pending: readonly string[];
    readonly lastError: string | null;
    readonly types: readonly {
      readonly typeUrl: string;
      readonly messages: number;
      readonly resources: number;
      readonly rejected: Readonly<Record<string, string>>;
      /** Since its last accepted push; absent before the first. */
      readonly ageMs?: number;
    }[];
  };
  readonly certificates: readonly {
    readonly identity: string;
    readonly state: 'valid' | 'missing';
    readonly activity: string;
    readonly serial: string | null;
    readonly notBefore: string | null;
    readonly notAfter: string | null;
    readonly failures: number;
    readonly lastError: string | null;
  }[];
  readonly capture: {
    readonly pods: readonly {
      readonly uid: string;
      readonly name: string;
      readonly namespace: string;
      /** agent/capture's PodState. */
      readonly state: string;
      readonly reason: string;
      /** In force: connections that go in clear and without policy. */
      readonly exclusions: Exclusions;
    }[];
    /** Pod cgroups that no manifest names. */
    readonly unknownPods: number;
    /** What keeps the agent from enrolling anything; else empty. */
    readonly trouble: string;
    readonly refusals: Readonly<Record<string, number>>;
    readonly features: readonly { readonly name: string; readonly present: boolean }[];
    readonly programs: readonly {
      readonly hook: string;
      readonly name: string;
      readonly id: number;
      readonly tag: string;
    }[];
    readonly links: readonly {
      readonly hook: string;
      readonly id: number;
      readonly programId: number;
      /** False: its cgroup is gone. */
      readonly isLive: boolean;
    }[];
    readonly maps: readonly {
      readonly name: string;
      readonly id: number;
      /** Null: nobody can tell. */
      readonly entries: number | null;
      readonly capacity: number;
    }[];
  };
  readonly manifests: { readonly problems: readonly ManifestProblem[] };
  readonly workers: readonly (Readonly<
    Record<'engine' | 'hbone' | 'tunnel', Readonly<Record<string, number>>>
  > | null)[];
}

/** Some sections of the agent's dump. Errors: UNREACHABLE, REFUSED. */
export async function readDump<const Section extends keyof AgentDump>(
  agent: AdminClient,
  ...sections: Section[]
): Promise<Pick<AgentDump, Section>> {
  const dump = (await agent.json(`/config_dump?sections=${sections.join(',')}`)) as Pick<AgentDump, Section>;
  return dump;
}

/** The agent's store as an update that a store of ours can apply: JSON has no maps. */
export function storeUpdateOf(dumped: StoreUpdate): StoreUpdate {
  return {
    ...dumped,
    snapshot: true,
    workloads: dumped.workloads.map((workload) => ({
      ...workload,
      services: new Map(Object.entries(workload.services)) as Workload['services'],
    })),
  };
}
