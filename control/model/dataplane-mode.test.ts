import { expect, test } from '@jest/globals';
import { decodeObject } from './index.js';

test.each(['Pod', 'Namespace'])(
  'a %s with a mode that is not known is invalid, as it is for agents',
  (kind) => {
    const labels = { 'istio.io/dataplane-mode': 'Ambient' };
    const decoded = decodeObject({ apiVersion: 'v1', kind, metadata: { name: 'x', labels } });
    expect(decoded).toMatchObject({
      outcome: 'invalid',
      problems: [{ path: ['metadata', 'labels', 'istio.io/dataplane-mode'] }],
    });
  },
);
