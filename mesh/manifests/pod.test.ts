import { expect, test } from '@jest/globals';
import { Fields } from './fields.js';
import { readPod } from './pod.js';

test('of annotations those of the mesh are kept, and what names the cgroup of a static pod', () => {
  const kept = {
    'ambient.istio.io/redirection': 'enabled',
    'traffic.sidecar.istio.io/excludeInboundPorts': '22',
    'istio.io/dry-run': 'true',
    'kubernetes.io/config.hash': 'a1',
  };
  const others = { 'checksum/config': 'x'.repeat(1000), 'notistio.io/x': 'y', 'example.com/istio.io/x': 'z' };
  const none = new Fields({});
  expect(readPod(new Fields({ annotations: { ...others, ...kept } }), none, none).annotations).toEqual(kept);
  expect(readPod(new Fields({ annotations: others }), none, none).annotations).toEqual({});
  const wrong = new Fields({ annotations: { 'example.com/x': 1 } });
  readPod(wrong, none, none);
  expect(wrong.problems).toHaveLength(1);
});
