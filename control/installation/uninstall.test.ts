import { describe, expect, test } from '@jest/globals';
import { type ApiRequest, KubeError } from '../../mesh/kube/index.js';
import { MARKER, RELEASED, removeMarker, UNINSTALL_DEFAULTS, uninstall } from './uninstall.js';

const OPTIONS = {
  ...UNINSTALL_DEFAULTS,
  namespace: 'mesh',
  webhooks: ['culvert'],
  agentsTimeoutMs: 30,
  controllerTimeoutMs: 1000,
  pollMs: 5,
};

type Handler = (request: ApiRequest) => unknown;

/** Answers by the first of `routes` whose method and path fit; keeps what was asked to change. */
function apiServer(routes: readonly (readonly [string, RegExp, Handler])[]) {
  const written: string[] = [];
  const request = async (asked: ApiRequest): Promise<unknown> => {
    const method = asked.method ?? 'GET';
    if (method !== 'GET') written.push(`${method} ${asked.path}`);
    const route = routes.find(([wanted, path]) => wanted === method && path.test(asked.path));
    if (route === undefined) throw new KubeError('KUBE_REFUSED', 'not found', { status: 404 });
    return route[2](asked);
  };
  return { client: { request }, written };
}

const list = (...items: object[]) => ({ metadata: {}, items });
const pod = (name: string, nodeName: string, annotations = {}) => ({
  metadata: { name, namespace: 'shop', annotations },
  spec: { nodeName },
});

function cluster(markerData: Readonly<Record<string, string>>) {
  let replicas = 2;
  return apiServer([
    ['POST', /configmaps$/, () => ({})],
    ['GET', new RegExp(`configmaps/${MARKER}$`), () => ({ metadata: { name: MARKER }, data: markerData })],
    [
      'GET',
      /namespaces\/mesh\/pods$/,
      ({ query }) =>
        query?.['labelSelector']?.includes('agent')
          ? list(pod('x', 'a'), pod('y', 'b'))
          : list(...Array.from({ length: replicas }, () => pod('c', 'a'))),
    ],
    ['GET', /scale$/, () => ({})],
    [
      'PATCH',
      /scale$/,
      () => {
        replicas = 0;
        return {};
      },
    ],
    [
      'GET',
      /nodes$/,
      () =>
        list(
          { metadata: { name: 'a' }, spec: { taints: [{ key: 'culvert/agent-not-ready' }] } },
          { metadata: { name: 'b' }, spec: {} },
          { metadata: { name: 'c' }, spec: { taints: [{ key: 'other' }] } },
        ),
    ],
    [
      'GET',
      /v1\/pods$/,
      () => list(pod('p', 'b', { 'ambient.istio.io/redirection': 'enabled' }), pod('q', 'a')),
    ],
    ['GET', /v1\/configmaps$/, () => list({ metadata: { name: 'culvert-ca-root-cert', namespace: 'shop' } })],
    ['PATCH', /nodes|pods/, () => ({})],
    ['DELETE', /./, () => ({})],
  ]);
}

async function run(markerData: Readonly<Record<string, string>>) {
  const { client, written } = cluster(markerData);
  const lines: string[] = [];
  const isWhole = await uninstall(OPTIONS, { client, say: (line) => void lines.push(line) });
  return { isWhole, written, lines };
}

describe('uninstall', () => {
  test('when all nodes are released: stops the controller before it removes what that would write anew', async () => {
    const { isWhole, written, lines } = await run({ a: RELEASED, b: RELEASED });
    expect(isWhole).toBe(true);
    expect(lines).toContain('released: a, b');
    expect(lines.join('\n')).toMatch(/no agent runs on c/);
    expect(written).toEqual([
      `DELETE /api/v1/namespaces/mesh/configmaps/${MARKER}`,
      'POST /api/v1/namespaces/mesh/configmaps',
      'DELETE /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/culvert',
      'PATCH /apis/apps/v1/namespaces/mesh/deployments/culvert-controller/scale',
      'DELETE /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/culvert',
      'PATCH /api/v1/nodes/a',
      'PATCH /api/v1/namespaces/shop/pods/p/status',
      'DELETE /api/v1/namespaces/shop/configmaps/culvert-ca-root-cert',
      'DELETE /api/v1/namespaces/mesh/secrets/culvert-webhook-ca',
      'DELETE /apis/coordination.k8s.io/v1/namespaces/mesh/leases/culvert-controller-leader',
      'DELETE /apis/batch/v1/namespaces/mesh/jobs/culvert-install',
    ]);
  });

  test('names nodes whose agent says nothing in time, and goes on', async () => {
    const { isWhole, written, lines } = await run({ a: RELEASED });
    expect(isWhole).toBe(false);
    expect(lines[0]).toMatch(/^NOT DONE: nodes released by their agents: b: no word of the agent/);
    expect(written).toContain('PATCH /api/v1/namespaces/shop/pods/p/status');
  });

  test('without any right says what it could not do, step by step', async () => {
    const refuse = async (): Promise<unknown> => {
      throw new KubeError('KUBE_REFUSED', 'forbidden', { status: 403 });
    };
    const lines: string[] = [];
    const say = (line: string) => void lines.push(line);
    expect(await uninstall(OPTIONS, { client: { request: refuse }, say })).toBe(false);
    expect(lines.map((line) => /^NOT DONE: ([^:]+): .*forbidden/.exec(line)?.[1])).toEqual([
      'nodes released by their agents',
      'webhook configurations',
      'controller stopped',
      'webhook configurations',
      'taints and annotations of nodes',
      'redirection annotations',
      'root ConfigMaps',
      'authority of the webhook',
      'lease',
      'Job of a failed upgrade',
    ]);
  });
});

test('removeMarker: none is no error', async () => {
  const { client } = apiServer([]);
  await removeMarker('mesh', { client, say: () => {} });
});
