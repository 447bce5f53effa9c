import type { KubeObject } from '../kubernetes/index.js';

/** How large the cluster is, and what is done in it. */
export interface ScaleOptions {
  /** Nodes, and as many agents. */
  readonly agents: number;
  /** In all. */
  readonly pods: number;
  /** Namespaces that are labelled one after another, with so many pods each. */
  readonly rounds: number;
  readonly smallPods: number;
  /** Of the namespace that is labelled at once. */
  readonly largePods: number;
  /** Pods that come and go a second against the real API server, for so long. */
  readonly rollPerSecond: number;
  readonly rollSeconds: number;
  /** The same from the recorded feed, until it has been told once. */
  readonly replayPerSecond: number;
  readonly idleSeconds: number;
  /** Of controller and simulated agents: in a cluster neither shares its cores with the API server. 0: all alike. */
  readonly nice: number;
}

export const FULL_SCALE: ScaleOptions = {
  agents: 1_000,
  pods: 10_000,
  rounds: 20,
  smallPods: 50,
  largePods: 2_000,
  rollPerSecond: 20,
  rollSeconds: 300,
  replayPerSecond: 100,
  idleSeconds: 30,
  nice: -10,
};

/** Shows that everything works, and measures nothing. */
export const SHORT_SCALE: ScaleOptions = {
  agents: 50,
  pods: 500,
  rounds: 3,
  smallPods: 10,
  largePods: 100,
  rollPerSecond: 5,
  rollSeconds: 10,
  replayPerSecond: 25,
  idleSeconds: 2,
  nice: 0,
};

export const DATAPLANE_LABEL = { 'istio.io/dataplane-mode': 'ambient' } as const;
export const REDIRECTED = { 'ambient.istio.io/redirection': 'enabled' } as const;
export const LARGE = 'large';
export const ROLLING = 'rolling';
export const PROBE = 'probe';
const PODS_PER_SERVICE = 10;
/** Of namespaces that nothing happens to. */
const PODS_PER_NAMESPACE = 100;

export const nodeName = (index: number): string => `node-${String(index).padStart(4, '0')}`;
export const smallNamespace = (round: number): string => `small-${round}`;

/** A pod as it is to be, before the API server has seen it. */
export interface PodPlan {
  readonly namespace: string;
  readonly name: string;
  readonly index: number;
  readonly node: string;
  /** In the mesh from the start. */
  readonly meshed: boolean;
}

export interface Population {
  readonly namespaces: readonly KubeObject[];
  readonly nodes: readonly KubeObject[];
  readonly pods: readonly PodPlan[];
  readonly services: readonly KubeObject[];
}

/** Namespaces of their own for what is labelled and what rolls; the other pods are in namespaces of 100, every other of them in the mesh. */
export function populationOf(options: ScaleOptions): Population {
  const sizes = new Map<string, number>();
  for (let round = 0; round < options.rounds; round++) sizes.set(smallNamespace(round), options.smallPods);
  sizes.set(LARGE, options.largePods);
  sizes.set(ROLLING, rollingPods(options));
  sizes.set(PROBE, 1);
  let left = options.pods - [...sizes.values()].reduce((sum, size) => sum + size, 0);
  for (let index = 0; left > 0; index++, left -= PODS_PER_NAMESPACE)
    sizes.set(`team-${index}`, Math.min(PODS_PER_NAMESPACE, left));
  const isMeshed = (namespace: string): boolean =>
    namespace === ROLLING || namespace === PROBE || /^team-\d*[02468]$/.test(namespace);
  const pods: PodPlan[] = [];
  for (const [namespace, size] of sizes)
    for (let number = 0; number < size; number++)
      pods.push(
        podPlan(options, pods.length, { namespace, name: podName(number), meshed: isMeshed(namespace) }),
      );
  return {
    namespaces: [...sizes.keys()].map((name) => ({
      metadata: { name, ...(isMeshed(name) ? { labels: { ...DATAPLANE_LABEL } } : {}) },
    })),
    nodes: Array.from({ length: options.agents }, (_, index) => nodeObject(index)),
    pods,
    services: [...sizes].flatMap(([namespace, size]) =>
      Array.from({ length: Math.ceil(size / PODS_PER_SERVICE) }, (_, index) =>
        serviceObject(namespace, index),
      ),
    ),
  };
}

export function rollingPods(options: ScaleOptions): number {
  return Math.min(500, Math.floor(options.pods / 5));
}

export function podPlan(
  options: ScaleOptions,
  index: number,
  what: Pick<PodPlan, 'namespace' | 'name' | 'meshed'>,
): PodPlan {
  return { ...what, index, node: nodeName(index % options.agents) };
}

/** `web-7-…`: of service web-7 / 10. */
export function podName(number: number, generation = 0): string {
  const hash = ((number + 1) * 2654435761 + generation * 40503) >>> 0;
  return `web-${Math.floor(number / PODS_PER_SERVICE)}-6d5f7c9b8d-${hash.toString(36).padStart(7, '0')}`;
}

export function podObject(
  plan: PodPlan,
  annotations: Readonly<Record<string, string>> = {},
): KubeObject & Record<string, unknown> {
  const app = plan.name.split('-6d5f7c9b8d-')[0]!;
  const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: `${app}-6d5f7c9b8d`, controller: true };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: plan.name,
      namespace: plan.namespace,
      annotations: { ...annotations },
      labels: { app, version: 'v1', 'app.kubernetes.io/part-of': 'scale', 'pod-template-hash': '6d5f7c9b8d' },
      ownerReferences: [{ ...owner, uid: '3b5a2c9e-8a4e-4f0e-9d43-0d6a0d0f3a11' }],
    },
    spec: {
      nodeName: plan.node,
      terminationGracePeriodSeconds: 30,
      containers: [
        {
          name: 'app',
          image: 'registry.example.com/team/app:1.27.3',
          ports: [
            { name: 'http', containerPort: 8080 },
            { name: 'metrics', containerPort: 9090 },
          ],
          env: [
            { name: 'LOG_LEVEL', value: 'info' },
            { name: 'POD_IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
          ],
          resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '256Mi' } },
          readinessProbe: { httpGet: { path: '/ready', port: 8080 }, periodSeconds: 10 },
        },
      ],
    },
  };
}

/** Running and ready, as a kubelet says it. */
export function runningStatus({ index }: PodPlan): object {
  const ip = addressOf(index);
  const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  const conditions = ['PodScheduled', 'PodReadyToStartContainers', 'Initialized', 'ContainersReady', 'Ready'];
  return {
    phase: 'Running',
    podIP: ip,
    podIPs: [{ ip }],
    hostIP: '172.18.0.2',
    startTime: now,
    conditions: conditions.map((type) => ({ type, status: 'True', lastTransitionTime: now })),
    containerStatuses: [
      {
        name: 'app',
        image: 'registry.example.com/team/app:1.27.3',
        imageID:
          'registry.example.com/team/app@sha256:8a4c1f0f4bd9a5d1b0b5d5e7d1e1a9a7f9f2c3e4b5a69788796a5b4c3d2e1f00',
        ready: true,
        started: true,
        restartCount: 0,
        state: { running: { startedAt: now } },
      },
    ],
  };
}

function addressOf(index: number): string {
  return `10.${64 + ((index >> 16) & 63)}.${(index >> 8) & 255}.${index & 255}`;
}

function nodeObject(index: number): KubeObject {
  const labels = {
    'kubernetes.io/hostname': nodeName(index),
    'topology.kubernetes.io/region': 'r1',
    'topology.kubernetes.io/zone': `z${index % 3}`,
  };
  return { metadata: { name: nodeName(index), labels } };
}

function serviceObject(namespace: string, index: number): KubeObject & Record<string, unknown> {
  const ports = [
    { name: 'http', port: 80, targetPort: 8080 },
    { name: 'metrics', port: 9090, targetPort: 'metrics' },
  ];
  return {
    metadata: { name: `web-${index}`, namespace },
    spec: { selector: { app: `web-${index}` }, ports },
  };
}
