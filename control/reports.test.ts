import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { createLog } from '../mesh/log/index.js';
import { validateManifests } from '../mesh/manifests/index.js';
import { decodeObject } from './model/index.js';
import { Reports, reportsOf } from './reports.js';
import { TRANSLATE_DEFAULTS } from './translate/index.js';

const testdata = join(dirname(fileURLToPath(import.meta.url)), '../../control/translate/testdata');

test('what a folder of manifests asks for and does not get, as validate says it', async () => {
  const { objects } = await validateManifests(join(testdata, 'outbound-policy.in.yaml'), decodeObject);
  const sidecar = (name: string) => `Sidecar/${name}`;
  expect(reportsOf(objects, TRANSLATE_DEFAULTS).map(({ object, field }) => [object, field])).toEqual([
    [sidecar('istio-system/default'), 'spec.egress'],
    [sidecar('open/another'), ''],
    [sidecar('shop/some'), 'spec.workloadSelector'],
  ]);
});

test('reports come and go with their objects', () => {
  const reports = new Reports({ log: createLog({ level: 'silent', component: 'test' }) });
  const limit = { field: 'spec.tls', reason: 'acts at L7 only', effect: 'ignored' };
  reports.update(new Map([['DestinationRule/a/b', [limit]]]));
  expect(reports.all).toEqual([{ object: 'DestinationRule/a/b', ...limit }]);
  reports.update(new Map([['DestinationRule/a/b', []]]));
  expect(reports.all).toEqual([]);
});
