import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { encodePortKey, encodeRangeKey, encodeU32 } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod } from '../lab/index.js';
import { Datapath } from './support/datapath.js';
import { python } from './support/python.js';

/** Maps of pods that are full: whoever is not in them is refused. original.test.ts and caller.test.ts have those of connections. */
describe('full maps', () => {
  let lab: Lab;
  let node: LabNode;
  let datapath: Datapath;
  let first: LabPod;
  let second: LabPod;
  const one = { pod_cgroups: 1, captured: 1, plain_netns: 1, excluded_ports: 1, excluded_ranges: 1 };

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    first = await node.pod('first');
    second = await node.pod('second');
    datapath = new Datapath(node, { maxEntries: one });
    datapath.captureOutbound(first);
    datapath.attach();
  }, 60_000);
  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  const attempt = async (pod: LabPod) =>
    JSON.parse(await pod.output(python(`out(attempt(('${node.ip}', 9), timeout=2))`))) as string;

  test('pod_cgroups, captured: the next pod cannot be listed, and is refused and counted', async () => {
    expect(() => datapath.list(second, 'plain')).toThrow(/E2BIG/);
    expect(() => datapath.capture(second)).toThrow(/E2BIG/);
    expect(await datapath.counted('refused_unknown', () => attempt(second))).toEqual(['EPERM', 1]);
    expect(await attempt(first)).toBe('');
  });

  test.each([
    ['excluded_ports', (cookie: bigint) => encodePortKey(cookie, 80, 'outbound'), /E2BIG/],
    ['excluded_ranges', (cookie: bigint) => encodeRangeKey(cookie, '10.0.0.0', 8), /ENOSPC/],
  ])(
    '%s: the exclusion cannot be written, so its pod is not captured with less than it asks for',
    (name, key, error) => {
      const map = datapath.map(name);
      expect(map.update(key(1n), encodeU32(1))).toBe(true);
      expect(() => map.update(key(2n), encodeU32(1))).toThrow(error);
      expect(map.delete(key(1n))).toBe(true);
    },
  );
});
