import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { localPodWith } from '../test/support/local-pod.js';
import { Arrivals } from './arrivals.js';
import type { CapturedPod, CaptureHandles } from './capture/index.js';

const handles = {} as CaptureHandles;
const podOf = (uid: string) => ({ pod: localPodWith({ uid }) }) as CapturedPod;

function lab() {
  const told: string[] = [];
  const arrivals = new Arrivals(
    {},
    {
      workers: { addPods: (pods) => void told.push(`workers ${pods.map(({ pod }) => pod.uid)}`) },
      dns: { serve: (uid) => void told.push(`dns ${uid}`) },
    },
  );
  return { told, arrivals };
}

test('pods that come in one turn are served together after it; one that has gone meanwhile is not', async () => {
  const { told, arrivals } = lab();
  for (const uid of ['a', 'gone', 'b']) arrivals.add(podOf(uid), handles);
  arrivals.remove('gone');
  expect(told).toEqual([]);
  await turn();
  expect(told).toEqual(['workers a,b', 'dns a', 'dns b']);
  arrivals.add(podOf('c'), handles);
  await turn();
  expect(told.slice(3)).toEqual(['workers c', 'dns c']);
});

test('closed: nobody is served any more', async () => {
  const { told, arrivals } = lab();
  arrivals.add(podOf('a'), handles);
  arrivals.close();
  arrivals.add(podOf('b'), handles);
  await turn();
  expect(told).toEqual([]);
});
