import { parentPort, workerData } from 'node:worker_threads';
import { createLog } from '../../mesh/log/index.js';
import { DnsWorker } from './dns-worker.js';
import type { DnsWorkerData, ToDns } from './messages.js';

/** The whole life of the thread that DnsThread starts. */
export function runDnsThread(): void {
  const port = parentPort;
  if (port === null) throw new Error('runDnsThread is for the thread that DnsThread starts');
  const data = workerData as DnsWorkerData;
  const worker = new DnsWorker(data, {
    post: (message) => port.postMessage(message),
    log: createLog({ level: data.logLevel, component: 'dns' }),
    nowMs: () => performance.now(),
  });
  port.on('message', (message: ToDns) => worker.onMessage(message));
}
