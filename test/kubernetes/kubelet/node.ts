import { existsSync, readFileSync } from 'node:fs';
import { arch, release } from 'node:os';
import { type ApiClient, ApiError, type KubeObject } from '../api.js';
import { VERSIONS } from '../binaries.js';
import { NODE_RESOURCES } from './environment.js';
import { pause } from './probes.js';
import type { KubeletConfig } from './types.js';

export const KUBELET_PORT = 10250;
const LEASE_SECONDS = 40;
const LEASE_RENEW_MS = 10_000;
const STATUS_MS = 60_000;

/** Registers the Node and keeps its lease and its heartbeat until the signal. Resolves when it is registered. */
export async function keepNode(
  config: KubeletConfig,
  api: ApiClient,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<void> {
  const started = now();
  for (;;) {
    try {
      await register(config, api, started);
      break;
    } catch (thrown) {
      say(`registering the node: ${(thrown as Error).message}`);
      await pause(500, signal);
      if (signal.aborted) return;
    }
  }
  const forever = async (what: string, everyMs: number, once: () => Promise<void>): Promise<void> => {
    while (!signal.aborted) {
      await once().catch((error: Error) => say(`${what}: ${error.message}`));
      await pause(everyMs, signal);
    }
  };
  void forever('lease', LEASE_RENEW_MS, () => renewLease(config, api));
  void forever('node status', STATUS_MS, async () => {
    // As a whole: by its keys (the type) a strategic merge would not bear two addresses of a kind.
    await api.patch(`/api/v1/nodes/${config.node}/status`, { status: { conditions: conditionsOf(started) } });
  });
}

async function register(config: KubeletConfig, api: ApiClient, started: string): Promise<void> {
  const node = {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: config.node,
      labels: {
        'kubernetes.io/hostname': config.node,
        'kubernetes.io/os': 'linux',
        'kubernetes.io/arch': goArch(),
        ...config.labels,
      },
    },
    status: nodeStatus(config, started),
  };
  try {
    await api.post('/api/v1/nodes', node);
  } catch (thrown) {
    if (!(thrown instanceof ApiError) || thrown.status !== 409) throw thrown;
    await api.patch(`/api/v1/nodes/${config.node}/status`, { status: node.status });
  }
}

function nodeStatus(config: KubeletConfig, started: string): object {
  return {
    addresses: [
      ...config.ips.map((address) => ({ type: 'InternalIP', address })),
      { type: 'Hostname', address: config.node },
    ],
    capacity: NODE_RESOURCES,
    allocatable: NODE_RESOURCES,
    daemonEndpoints: { kubeletEndpoint: { Port: KUBELET_PORT } },
    conditions: conditionsOf(started),
    nodeInfo: {
      machineID: `lab-${config.node}`,
      systemUUID: `lab-${config.node}`,
      bootID: bootId(),
      kernelVersion: release(),
      osImage: 'Culvert lab',
      containerRuntimeVersion: 'culvert-lab://1',
      kubeletVersion: `v${VERSIONS.kubernetes}`,
      kubeProxyVersion: '',
      operatingSystem: 'linux',
      architecture: goArch(),
    },
  };
}

function conditionsOf(started: string): object[] {
  const condition = (type: string, status: string, reason: string): object => ({
    ...{ type, status, reason, lastHeartbeatTime: now(), lastTransitionTime: started },
    message: `lab kubelet: ${reason}`,
  });
  return [
    condition('MemoryPressure', 'False', 'KubeletHasSufficientMemory'),
    condition('DiskPressure', 'False', 'KubeletHasNoDiskPressure'),
    condition('PIDPressure', 'False', 'KubeletHasSufficientPID'),
    condition('Ready', 'True', 'KubeletReady'),
  ];
}

async function renewLease(config: KubeletConfig, api: ApiClient): Promise<void> {
  const path = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
  const renewTime = new Date().toISOString().replace('Z', '000Z');
  try {
    await api.patch(`${path}/${config.node}`, { spec: { renewTime } });
  } catch (thrown) {
    if (!(thrown instanceof ApiError) || thrown.status !== 404) throw thrown;
    const { name, uid } = (await api.get<KubeObject>(`/api/v1/nodes/${config.node}`)).metadata;
    await api.post(path, {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: config.node, ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name, uid }] },
      spec: { holderIdentity: config.node, leaseDurationSeconds: LEASE_SECONDS, renewTime },
    });
  }
}

function goArch(): string {
  return arch() === 'x64' ? 'amd64' : arch();
}

function bootId(): string {
  const file = '/proc/sys/kernel/random/boot_id';
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : 'lab';
}

/** metav1.Time: whole seconds. */
function now(): string {
  return new Date().toISOString().replace(/\.\d+/, '');
}
