import { describe, expect, test } from '@jest/globals';
import { Fields } from '../../mesh/manifests/fields.js';
import { keyOf } from '../../mesh/manifests/index.js';
import { decodeObject, type MeshObject, MODEL_DEFAULTS, Model, type Pod } from '../model/index.js';
import { findingsOf } from './checks.js';
import { Facts } from './facts.js';
import { decodeNetworkPolicy } from './network-policy.js';

const AGENT = { 'app.kubernetes.io/name': 'culvert-agent', 'istio.io/dataplane-mode': 'none' };

function modelOf(...objects: object[]): Model {
  const model = new Model(MODEL_DEFAULTS, { onChange: () => {} });
  const upserted = new Map<string, MeshObject>();
  for (const object of objects) {
    const decoded = decodeObject(object as Parameters<typeof decodeObject>[0]);
    if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
    upserted.set(decoded.key, decoded.value);
  }
  model.apply({ upserted, removed: [] });
  model.flush();
  return model;
}

const namespace = (name: string, mode = 'ambient') => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name, labels: { 'istio.io/dataplane-mode': mode } },
});
const pod = (
  name: string,
  more: { labels?: object; annotations?: object; ready?: boolean; ns?: string } = {},
) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name,
    namespace: more.ns ?? 'shop',
    labels: more.labels ?? {},
    annotations: more.annotations ?? {},
  },
  spec: { nodeName: 'n1' },
  status: {
    phase: 'Running',
    conditions: [{ type: 'Ready', status: more.ready === false ? 'False' : 'True' }],
  },
});

/** Reasons and notes, by object. */
function find(objects: object[], policies: object[] = []): Record<string, string> {
  const facts = new Facts({ onChange: () => {} });
  facts.observe(keyOf('Node', '', 'n1'), { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1' } });
  const networkPolicies = policies.map((spec, i) =>
    decodeNetworkPolicy(new Fields({ spec }), 'shop', `policy-${i}`),
  );
  const isAgent = ({ labels }: Pod) => labels['app.kubernetes.io/name'] === 'culvert-agent';
  const found = findingsOf({
    model: modelOf(namespace('shop'), ...objects),
    facts,
    isAgent,
    networkPolicies,
  });
  return Object.fromEntries(
    [...found].map(({ regarding, reason, note }) => [`${regarding.kind} ${regarding.name} ${reason}`, note]),
  );
}

describe('pods and their agent', () => {
  test('pods that wait are told of their node, whether its agent is not ready or not there', () => {
    expect(find([pod('one'), pod('two')])['Node n1 PodsHeld']).toMatch(
      /and 1 more of the mesh wait on this node, and there is no agent/,
    );
    const agent = pod('agent', { labels: AGENT, ready: false, ns: 'culvert-system' });
    expect(find([pod('one'), agent])['Node n1 PodsHeld']).toMatch(/its agent is not ready/);
  });

  test('with a ready agent, one that is not captured is told itself; captured ones are not', () => {
    const agent = pod('agent', { labels: AGENT, ns: 'culvert-system' });
    const captured = pod('captured', { annotations: { 'ambient.istio.io/redirection': 'enabled' } });
    expect(Object.keys(find([pod('one'), captured, agent]))).toEqual(['Pod one NotCaptured']);
  });

  test('whatever passes the mesh by is told, the mesh’s own pods and mere defaults are not', () => {
    const agent = pod('agent', { labels: AGENT, ns: 'shop' });
    const enabled = { 'ambient.istio.io/redirection': 'enabled' };
    const found = find([
      agent,
      pod('out', { labels: { 'istio.io/dataplane-mode': 'none' } }),
      pod('bypass', { annotations: { ...enabled, 'ambient.istio.io/bypass-inbound-capture': 'true' } }),
      pod('default', { annotations: { ...enabled, 'ambient.istio.io/bypass-inbound-capture': 'false' } }),
    ]);
    expect(Object.keys(found).sort()).toEqual(['Pod bypass ExclusionUsed', 'Pod out ExclusionUsed']);
  });
});

describe('NetworkPolicies', () => {
  const enabled = pod('one', {
    labels: { app: 'one' },
    annotations: { 'ambient.istio.io/redirection': 'enabled' },
  });
  const agent = pod('agent', { labels: AGENT, ns: 'culvert-system' });
  const select = { podSelector: { matchLabels: { app: 'one' } } };
  const port = (number: number | string, more: object = {}) => ({ port: number, ...more });
  const from = (app: string) => [{ podSelector: { matchLabels: { app } } }];
  const troublesOf = (...policies: object[]) =>
    find(
      [enabled, agent],
      policies.map((policy) => ({ ...select, ...policy })),
    );

  test.each([
    ['no rules: nothing is meant to come in', { policyTypes: ['Ingress'] }],
    ['all ports', { ingress: [{ from: from('x') }] }],
    ['both', { ingress: [{ from: from('x'), ports: [port(8080), port(15008)] }] }],
    ['a range with both', { ingress: [{ ports: [port(8000, { endPort: 16_000 })] }] }],
    ['UDP', { ingress: [{ ports: [port(8080, { protocol: 'UDP' })] }] }],
    [
      'names only, on the way out',
      { policyTypes: ['Egress'], egress: [{ ports: [port(53), port(53, { protocol: 'UDP' })] }] },
    ],
    ['another pod', { podSelector: { matchLabels: { app: 'two' } }, ingress: [{ ports: [port(8080)] }] }],
    [
      'another pod by expressions',
      {
        podSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['one'] }] },
        ingress: [{ ports: [port(8080)] }],
      },
    ],
  ])('%s: nothing to tell', (_name, policy) => {
    expect(troublesOf(policy)).toEqual({});
  });

  test.each([
    ['a port', { ingress: [{ from: from('x'), ports: [port(8080)] }] }, /ingress admits 8080 and not 15008/],
    ['a named port', { ingress: [{ ports: [port('http')] }] }, /admits http and not 15008/],
    ['the tunnel only', { ingress: [{ ports: [port(15_008)] }] }, /admits 15008 only/],
    [
      'the way out',
      { policyTypes: ['Egress'], egress: [{ to: from('x'), ports: [port(8080)] }] },
      /egress admits 8080/,
    ],
    [
      'by expressions',
      {
        podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['one'] }] },
        ingress: [{ ports: [port(8080)] }],
      },
      /admits 8080/,
    ],
  ])('%s: told', (_name, policy, expected) => {
    expect(troublesOf(policy)['NetworkPolicy policy-0 BlocksMesh']).toMatch(expected);
  });

  test('they add up: what one admits from all, or from the same peers, counts for the other', () => {
    const app = { ingress: [{ from: from('x'), ports: [port(8080)] }] };
    expect(troublesOf(app, { ingress: [{ ports: [port(15_008)] }] })).toEqual({});
    expect(troublesOf(app, { ingress: [{ from: from('x'), ports: [port(15_008)] }] })).toEqual({});
    expect(Object.keys(troublesOf(app, { ingress: [{ from: from('y'), ports: [port(15_008)] }] }))).toEqual([
      'NetworkPolicy policy-0 BlocksMesh',
    ]);
  });

  test('many of one namespace are no burden: beyond a bound they are not looked at', () => {
    const pods = Array.from({ length: 500 }, (_, i) =>
      pod(`pod-${i}`, {
        labels: { app: 'one' },
        annotations: { 'ambient.istio.io/redirection': 'enabled' },
      }),
    );
    const many = (count: number) =>
      Array.from({ length: count }, () => ({ ...select, ingress: [{ ports: [port(8080)] }] }));
    const startedMs = performance.now();
    expect(Object.keys(find([...pods, agent], many(400)))).toHaveLength(400);
    expect(find([...pods, agent], many(5000))).toEqual({});
    // 40 million pairs of policies for these pods would take a minute.
    expect(performance.now() - startedMs).toBeLessThan(20_000);
  });
});
