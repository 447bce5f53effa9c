import { expect, test } from '@jest/globals';
import type { WorkerPool } from '../mesh/io/index.js';
import { createStore } from '../mesh/store/index.js';
import type { CapturedPod, CaptureHandles } from './capture/index.js';
import type { FromWorker, ToWorker } from './tunnel/index.js';
import { Workers } from './workers.js';

function lab() {
  const posted: string[] = [];
  const pool = {
    post: (worker: number | 'all', message: ToWorker) => void posted.push(`${worker} ${message.kind}`),
  } as unknown as WorkerPool<ToWorker, FromWorker>;
  const workers = new Workers({ count: 2 }, { pool, store: createStore() });
  const pod = {
    pod: { uid: 'u' },
    outboundFds: [1, 2, 3],
    inboundFds: [4, 5, 6],
    hboneFds: [7, 8, 9],
  } as unknown as CapturedPod;
  return { posted, workers, pod, handles: {} as CaptureHandles };
}

test('a pod is released when every worker has let go of it, or has been started again', async () => {
  const { workers, pod, handles } = lab();
  workers.addPods([pod], handles);
  let isReleased = false;
  const released = workers.releasePod('u', 'deleted').then(() => {
    isReleased = true;
  });
  workers.onMessage(0, { kind: 'released', uid: 'u' });
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(isReleased).toBe(false);
  workers.resend(1);
  await released;
});

test('a worker that is started again during a drain gets no pods, and counts as drained', async () => {
  const { posted, workers, pod, handles } = lab();
  workers.addPods([pod], handles);
  let hasStopped = false;
  const drained = workers.drain(60_000, () => {
    hasStopped = true;
  });
  workers.onMessage(0, { kind: 'draining' });
  posted.length = 0;
  workers.resend(1);
  expect(posted).toEqual(['1 drain']);
  workers.onMessage(0, { kind: 'drain-count', ended: 2, reset: 1 });
  workers.onMessage(0, { kind: 'drained' });
  await drained;
  expect(hasStopped).toBe(true);
  expect(workers.drainCounts).toEqual({ ended: 2, reset: 1 });
});
