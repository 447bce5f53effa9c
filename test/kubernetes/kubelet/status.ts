import type { PodContainer } from './container.js';
import type { Condition, Pod } from './types.js';

export interface StatusInputs {
  readonly pod: Pod;
  readonly phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed';
  readonly startTime: string;
  readonly hostIps: readonly string[];
  readonly podIps: readonly string[];
  readonly initialized: boolean;
  readonly containers: readonly PodContainer[];
  readonly initContainers: readonly PodContainer[];
}

/** Body of a strategic merge patch of a pod's status: conditions of others (the scheduler's, readiness gates) stay. */
export function podStatus(inputs: StatusInputs): object {
  const { pod, phase, containers, initContainers, podIps } = inputs;
  const statuses = containers.map(({ status }) => status);
  return {
    phase,
    startTime: inputs.startTime,
    hostIP: inputs.hostIps[0],
    hostIPs: replaced(inputs.hostIps),
    ...(podIps.length > 0 ? { podIP: podIps[0], podIPs: replaced(podIps) } : {}),
    conditions: conditionsOf(inputs),
    containerStatuses: statuses.length > 0 ? statuses : waiting(pod),
    ...(initContainers.length > 0
      ? { initContainerStatuses: initContainers.map(({ status }) => status) }
      : {}),
  };
}

/** As a whole: otherwise the addresses of a pod that had others before a power cut would stay. */
function replaced(ips: readonly string[]): object[] {
  return [...ips.map((ip) => ({ ip })), { $patch: 'replace' }];
}

function waiting(pod: Pod): object[] {
  return pod.spec.containers.map(({ name, image }) => ({
    ...{ name, image, imageID: '', ready: false, started: false, restartCount: 0 },
    state: { waiting: { reason: 'ContainerCreating' } },
    lastState: {},
  }));
}

function conditionsOf({
  pod,
  phase,
  initialized,
  containers,
  initContainers,
  podIps,
}: StatusInputs): Condition[] {
  const sidecars = initContainers.filter(({ spec }) => spec.restartPolicy === 'Always');
  const unready = [...containers, ...sidecars].filter(({ ready }) => !ready).map(({ spec }) => spec.name);
  const over = phase === 'Succeeded' ? 'PodCompleted' : phase === 'Failed' ? 'PodFailed' : '';
  const why =
    over !== ''
      ? { reason: over }
      : { reason: 'ContainersNotReady', message: `containers with unready status: [${unready.join(' ')}]` };
  const containersReady = initialized && over === '' && unready.length === 0;
  const gates = (pod.spec.readinessGates ?? []).filter(
    ({ conditionType }) =>
      pod.status?.conditions?.find(({ type }) => type === conditionType)?.status !== 'True',
  );
  const ready = containersReady && gates.length === 0;
  const gated = {
    reason: 'ReadinessGatesNotReady',
    message: `not true: ${gates.map((gate) => gate.conditionType).join(', ')}`,
  };
  return [
    condition(pod, 'PodReadyToStartContainers', podIps.length > 0 && over === '', {}),
    condition(pod, 'Initialized', initialized || over === 'PodCompleted', {
      reason: 'ContainersNotInitialized',
    }),
    condition(pod, 'ContainersReady', containersReady, why),
    condition(pod, 'Ready', ready, containersReady ? gated : why),
  ];
}

/** Keeps the time of its last change. */
function condition(
  pod: Pod,
  type: string,
  holds: boolean,
  why: { readonly reason?: string; readonly message?: string },
): Condition {
  const status = holds ? 'True' : 'False';
  const before = pod.status?.conditions?.find((held) => held.type === type);
  const lastTransitionTime =
    before?.status === status
      ? (before.lastTransitionTime ?? null)
      : new Date().toISOString().replace(/\.\d+/, '');
  // Of a patch null takes away, and absent would leave what was there.
  const { reason = null, message = null } = holds ? {} : why;
  return { type, status, lastTransitionTime, reason, message } as unknown as Condition;
}
