import { type FromWorker, type ToWorker, TunnelWorker, type WorkerData } from '../../agent/tunnel/index.js';
import { runWorker } from '../../mesh/io/index.js';
import { createLog } from '../../mesh/log/index.js';
import { threadCpuMs } from './usage.js';

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
