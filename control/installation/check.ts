import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../mesh/common/errors.js';
import { tryGet } from './requests.js';
import type { Requests, Say } from './types.js';

export interface CheckOptions {
  readonly namespace: string;
  /** The controller's monitoring by its Service, `http://host:port`. */
  readonly controller: string;
  /** For all of it to be well, milliseconds. */
  readonly timeoutMs: number;
  readonly pollMs: number;
}

export const CHECK_DEFAULTS = { timeoutMs: 60_000, pollMs: 1000 } as const;

interface DaemonSet {
  readonly status?: { readonly desiredNumberScheduled?: number; readonly numberReady?: number };
}

/** `helm test`: an agent is ready on every node, and the controller answers by its Service. Throws an Error that says what is not so. */
export async function checkInstallation(
  options: CheckOptions,
  deps: { readonly client: Requests; readonly say: Say },
): Promise<void> {
  const untilMs = performance.now() + options.timeoutMs;
  for (;;) {
    const faults = [await agentsFault(options, deps), await controllerFault(options)].filter(
      (fault) => fault !== null,
    );
    if (faults.length === 0) return;
    if (performance.now() > untilMs) throw new Error(faults.join('; '));
    await sleep(options.pollMs);
  }
}

async function agentsFault(
  { namespace }: CheckOptions,
  { client, say }: { readonly client: Requests; readonly say: Say },
): Promise<string | null> {
  const set = await tryGet<DaemonSet>(
    client,
    `/apis/apps/v1/namespaces/${namespace}/daemonsets/culvert-agent`,
  );
  const { desiredNumberScheduled: wanted = 0, numberReady: ready = 0 } = set?.status ?? {};
  if (wanted === 0 || ready < wanted) return `agents ready on ${ready} of ${wanted} nodes`;
  say(`agents ready on all of ${wanted} nodes`);
  return null;
}

async function controllerFault({ controller }: CheckOptions): Promise<string | null> {
  try {
    const answer = await fetch(`${controller}/healthz/ready`, { signal: AbortSignal.timeout(5000) });
    return answer.ok ? null : `controller: ${answer.status} ${(await answer.text()).trim()}`;
  } catch (error) {
    return `controller at ${controller}: ${messageOf(error)}`;
  }
}
