import { runWorker } from '../mesh/io/index.js';
import { createLog } from '../mesh/log/index.js';
import { type FromWorker, type ToWorker, TunnelWorker, type WorkerData } from './tunnel/index.js';

/** The worker thread's program; started by the pool of `wire.ts`. */
runWorker<WorkerData, ToWorker, FromWorker>({
  log: (data) => createLog({ level: data.logLevel, component: 'worker' }),
  setup: ({ reactor, index, data, post }) => {
    const log = createLog({ level: data.logLevel, component: 'worker' }).child({ worker: index });
    const engineCounters = () => ({ ...reactor.counters });
    const lingering = () => reactor.lingering;
    const worker = new TunnelWorker(data, { reactor, index, post, log, engineCounters, lingering });
    return (message) => worker.onMessage(message);
  },
});
