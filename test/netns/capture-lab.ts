/** What the tests of agent/capture share: nodes with a capture agent, and processes in pods that connect and listen. */
import { join } from 'node:path';
import type { CaptureOptions, CaptureStatus } from '../../agent/capture/index.js';
import type { Bpf } from '../../native/bpf/index.js';
import { packageRoot } from '../../native/package-root.js';
import { type LabNode, type LabPod, type LabProcess, waitFor } from '../lab/index.js';
import type { CaptureAgentConfig } from './capture-agent.js';

export const ambient = { 'istio.io/dataplane-mode': 'ambient' };
export const plain = { 'istio.io/dataplane-mode': 'none' };
export const echoProgram = join(packageRoot(), 'dist/test/support/http-echo.js');
const agentProgram = join(packageRoot(), 'dist/test/netns/capture-agent.js');

export interface AgentEvent {
  readonly event: string;
  /** Date.now() of when it was written. */
  readonly atMs: number;
  readonly uid?: string;
  readonly pod?: string;
  readonly reason?: string;
  readonly code?: string;
  readonly message?: string;
  readonly status?: CaptureStatus;
  readonly caller?: { readonly address: string; readonly port: number };
  readonly shown?: { readonly address: string; readonly port: number };
  readonly destination?: { readonly address: string; readonly port: number } | null;
}

export type AgentOptions = Partial<CaptureAgentConfig['capture']> & {
  readonly quiet?: boolean;
  /** In a cgroup namespace of its own, as containers that are not privileged have one. */
  readonly ownCgroupNamespace?: boolean;
};

/** A capture agent in a host-network pod of its own, as a DaemonSet has it. */
export class CaptureAgent {
  readonly process: LabProcess;

  private constructor(process: LabProcess) {
    this.process = process;
  }

  /** Starts it in a pod (or outside of all pods); resolves when it is ready. Rejects with what it failed with. */
  static async start(place: LabPod | LabNode, options: AgentOptions = {}): Promise<CaptureAgent> {
    const agent = CaptureAgent.launch(place, options);
    await agent.process.waitForOutput(/"event":"(ready|failed)"/);
    const failed = agent.events('failed')[0];
    if (failed !== undefined) throw Object.assign(new Error(failed.message), { code: failed.code });
    return agent;
  }

  /** Like `start`, without waiting. */
  static launch(place: LabPod | LabNode, options: AgentOptions = {}): CaptureAgent {
    const { quiet = false, ownCgroupNamespace = false, ...capture } = options;
    const node = 'node' in place ? place.node : place;
    const config: CaptureAgentConfig = {
      capture: { ...captureOptions(node), ...capture },
      folder: node.lab.manifests.path,
      nodeName: node.name,
      quiet,
    };
    return new CaptureAgent(
      place.spawn([
        ...(ownCgroupNamespace ? ['unshare', '--cgroup'] : []),
        process.execPath,
        agentProgram,
        JSON.stringify(config),
      ]),
    );
  }

  events(kind?: string): AgentEvent[] {
    const lines = this.process.stdout.split('\n').filter((line) => line.endsWith('}'));
    const all = lines.map((line) => JSON.parse(line) as AgentEvent);
    return kind === undefined ? all : all.filter(({ event }) => event === kind);
  }

  async status(): Promise<CaptureStatus> {
    const before = this.events('status').length;
    this.process.write('status\n');
    const event = await waitFor('the status', () => this.events('status')[before]);
    return event.status!;
  }

  async waitForState(pod: LabPod, state: string): Promise<void> {
    await waitFor(
      `${pod.name} to be ${state}`,
      async () => (await this.status()).pods.find(({ uid }) => uid === pod.uid)?.state === state,
    );
  }

  /** Stops in order: pins stay. */
  async stop(): Promise<void> {
    this.process.write('stop\n');
    await this.process.waitForOutput(/"event":"stopped"/);
    await this.process.ended;
  }

  async kill(): Promise<void> {
    await this.process.stop('SIGKILL');
  }
}

/** What an agent of this node is told of the node. */
export function captureOptions(node: LabNode): Omit<CaptureOptions, 'workers'> & { bpffsDir: string } {
  return {
    podsParent: node.kubepods,
    hostNetns: `/run/netns/${node.netns}`,
    kubeletCgroup: node.hostPlace('kubelet').cgroup,
    bpffsDir: node.bpffsDir,
  };
}

export async function agentPod(node: LabNode, name = 'agent'): Promise<LabPod> {
  return await node.pod(name, { hostNetwork: true, labels: plain });
}

export async function startEcho(pod: LabPod): Promise<LabProcess> {
  const server = pod.spawn([process.execPath, echoProgram, '8080']);
  await server.waitForOutput(/listening/);
  return server;
}

/** Our programs at the hooks of a node, by name: how many of each. */
export function programsAt(bpf: Bpf, kubepods: string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const type of Object.values(attachTypes)) {
    for (const { name } of bpf.attached(kubepods, type)) counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

/** enum bpf_attach_type. */
const attachTypes = {
  ingress: 0,
  sockOps: 3,
  connect4: 10,
  connect6: 11,
  getpeername4: 29,
  getpeername6: 30,
};
export const skLookup = 36;
export const onePerHook = {
  hold_ingress: 1,
  sock_ops: 1,
  connect4: 1,
  connect6: 1,
  getpeername4: 1,
  getpeername6: 1,
};

/** One HTTP request from a pod to another's echo server. Null: no answer within `seconds`, or an error. */
export async function request(
  from: LabPod,
  to: LabPod,
  options: { readonly address?: string; readonly seconds?: number } = {},
): Promise<{ peer: { address: string; port: number }; local: { address: string; port: number } } | null> {
  const address = options.address ?? to.ip;
  const host = address.includes(':') ? `[${address}]` : address;
  const result = await from.exec([
    'curl',
    '-sS',
    '-m',
    String(options.seconds ?? 10),
    `http://${host}:8080/`,
  ]);
  return result.code === 0 ? JSON.parse(result.stdout) : null;
}
