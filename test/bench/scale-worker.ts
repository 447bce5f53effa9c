import { readFileSync } from 'node:fs';
import { type FromWorker, type ToWorker, TunnelWorker, type WorkerData } from '../../agent/tunnel/index.js';
import { runWorker } from '../../mesh/io/index.js';
import { createLog } from '../../mesh/log/index.js';

/** The agent's worker, which tells how long the longest of its turns took. */
export type ToScaleWorker = ToWorker | { readonly kind: 'scale-turn' };
export type FromScaleWorker = FromWorker | { readonly kind: 'scale-turn'; readonly longestMs: number };

runWorker<WorkerData, ToScaleWorker, FromScaleWorker>({
  log: () => createLog({ level: 'error', component: 'worker' }),
  setup: ({ reactor, index, data, post }) => {
    const log = createLog({ level: 'error', component: 'worker' });
    const none = { engineCounters: () => ({}), lingering: () => 0 };
    const worker = new TunnelWorker(data, { reactor, index, post, log, ...none });
    let longestMs = 0;
    let lastMs = threadCpuMs();
    let isNoted = false;
    const noteTurn = (): void => {
      if (isNoted) return;
      isNoted = true;
      reactor.atEndOfTurn(() => {
        isNoted = false;
        const nowMs = threadCpuMs();
        longestMs = Math.max(longestMs, nowMs - lastMs);
        lastMs = nowMs;
      });
    };
    return (message) => {
      noteTurn();
      if (message.kind !== 'scale-turn') worker.onMessage(message);
      else {
        post({ kind: 'scale-turn', longestMs });
        longestMs = 0;
      }
    };
  },
});

/** Time that this thread has had of a CPU: what others on the machine do is not in it. */
function threadCpuMs(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6;
}
