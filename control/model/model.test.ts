import { beforeEach, describe, expect, test } from '@jest/globals';
import { keyOf } from '../../mesh/manifests/index.js';
import { decodeObject, type MeshObject, MODEL_DEFAULTS, Model, type ModelChange } from './index.js';

let changes: ModelChange[];
let model: Model;

beforeEach(() => {
  changes = [];
  model = new Model(
    { ...MODEL_DEFAULTS, debounceMs: 5, debounceMaxMs: 50 },
    { onChange: (change) => changes.push(change) },
  );
});

function object(kind: string, namespace: string, name: string, rest: object = {}): [string, MeshObject] {
  const { metadata = {}, ...others } = rest as { metadata?: object };
  const decoded = decodeObject({
    apiVersion: 'v1',
    kind,
    metadata: { name, ...(namespace && { namespace }), ...metadata },
    ...others,
  });
  if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
  return [decoded.key, decoded.value];
}

const pod = (name: string, labels: object = {}, nodeName = 'n1') =>
  object('Pod', 'a', name, { metadata: { labels }, spec: { nodeName } });
const service = (name: string, selector: object) => object('Service', 'a', name, { spec: { selector } });

/** Applies and gives the pods and services touched. */
function apply(
  upserted: [string, MeshObject][],
  removed: string[] = [],
): { pods: string[]; services: string[] } {
  changes = [];
  model.apply({ upserted: new Map(upserted), removed });
  model.flush();
  const [change] = changes;
  return { pods: [...(change?.pods ?? [])].sort(), services: [...(change?.services ?? [])].sort() };
}

describe('what a change touches', () => {
  beforeEach(() => {
    apply([
      pod('p1', { app: 'x' }),
      pod('p2', { app: 'y' }, 'n2'),
      service('s', { app: 'x' }),
      object('Pod', 'b', 'q'),
    ]);
  });

  test('a pod: itself', () => {
    expect(apply([pod('p1', { app: 'y' })])).toEqual({ pods: ['Pod/a/p1'], services: [] });
  });

  test('a service: itself and the pods it had and has', () => {
    expect(apply([service('s', { app: 'y' })])).toEqual({
      pods: ['Pod/a/p1', 'Pod/a/p2'],
      services: ['Service/a/s'],
    });
    expect(apply([], ['Service/a/s'])).toEqual({ pods: ['Pod/a/p2'], services: ['Service/a/s'] });
  });

  test('a namespace: all in it', () => {
    const labels = { 'istio.io/dataplane-mode': 'ambient' };
    const touched = { pods: ['Pod/a/p1', 'Pod/a/p2'], services: ['Service/a/s'] };
    expect(apply([object('Namespace', '', 'a', { metadata: { labels } })])).toEqual(touched);
    expect(apply([], ['Namespace/a'])).toEqual(touched);
  });

  test('a node: the pods on it', () => {
    expect(apply([object('Node', '', 'n2', { metadata: { labels: { z: '1' } } })]).pods).toEqual([
      'Pod/a/p2',
    ]);
  });

  test('an equal value: nothing', () => {
    apply([pod('p1', { app: 'x' })]);
    expect(changes).toEqual([]);
  });
});

describe('indexes', () => {
  test('services that select a pod: all labels must agree, no selector takes none', () => {
    apply([
      service('both', { app: 'x', tier: 'web' }),
      service('one', { app: 'x' }),
      service('other', { app: 'y' }),
      service('none', {}),
      object('Service', 'b', 'elsewhere', { spec: { selector: { app: 'x' } } }),
      pod('p', { app: 'x', tier: 'web' }),
    ]);
    const names = () => model.relations.selecting(model.pod(keyOf('Pod', 'a', 'p'))!).map(({ name }) => name);
    expect(names()).toEqual(['both', 'one']);
    apply([service('one', { app: 'z' })], ['Service/a/both']);
    expect(names()).toEqual([]);
  });

  test('pods of a node follow them', () => {
    apply([pod('p')]);
    const names = (node: string) => [...model.podsOnNode(node)].map(({ name }) => name);
    expect(names('n1')).toEqual(['p']);
    apply([pod('p', {}, 'n2')]);
    expect([names('n1'), names('n2')]).toEqual([[], ['p']]);
    apply([], ['Pod/a/p']);
    expect(names('n2')).toEqual([]);
  });
});

test('changes are handed on together, after a quiet while and at the latest after the maximum', async () => {
  const tick = setInterval(
    () => model.apply({ upserted: new Map([pod('p', { at: `${performance.now()}` })]), removed: [] }),
    2,
  );
  const start = performance.now();
  while (changes.length === 0 && performance.now() - start < 5000)
    await new Promise((resolve) => setTimeout(resolve, 1));
  clearInterval(tick);
  expect(changes).toHaveLength(1);
  expect(performance.now() - start).toBeGreaterThan(4);
  model.stop();
});
