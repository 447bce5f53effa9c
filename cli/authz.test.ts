import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type AdminServers, startAdmin } from '../mesh/admin/index.js';
import { policyWith, serviceWith, updateWith, workloadWith } from '../mesh/store/fixtures.js';
import type { AuthorizationMatch, StoreUpdate } from '../mesh/store/types.js';
import { runCli } from './run.js';

// What `authz explain` makes of an agent's configuration; test/netns/culvertctl.test.ts asks a real one.

const anywhere = { address: '127.0.0.1', port: 0 };
const noExclusions = {
  outboundPorts: [] as number[],
  outboundRanges: [] as string[],
  inboundPorts: [] as number[],
};
const key = 'shop/web.shop.svc.cluster.local';

const workload = (name: string, address: string, fields: object = {}) =>
  workloadWith({
    uid: name,
    name,
    namespace: 'shop',
    addresses: [address],
    tunnelProtocol: 'hbone',
    serviceAccount: name,
    node: 'a',
    ...fields,
  });
const ofService = { services: new Map([[key, [{ servicePort: 80, targetPort: 8080 }]]]) };
const mixed = 'shop/mixed.shop.svc.cluster.local';
const ofMixed = { services: new Map([[mixed, [{ servicePort: 80, targetPort: 8080 }]]]) };
const update: StoreUpdate = updateWith({
  snapshot: true,
  workloads: [
    workload('cart', '10.0.0.1'),
    workload('web-1', '10.0.0.2', ofService),
    workload('web-2', '10.0.0.3', { ...ofService, node: 'b' }),
    workload('old', '10.0.0.4', { ...ofMixed, tunnelProtocol: 'none', node: 'b' }),
    workload('broken', '10.0.0.5'),
    workload('by-path', '10.0.0.6', {
      ...ofMixed,
      node: 'b',
      authorizationPolicies: ['other/l7-only'],
    }),
  ],
  services: [
    serviceWith({ hostname: 'mixed.shop.svc.cluster.local', name: 'mixed', namespace: 'shop' }),
    serviceWith({
      hostname: 'web.shop.svc.cluster.local',
      name: 'web',
      namespace: 'shop',
      vips: [{ network: '', address: '10.96.0.1', prefixLength: null }],
      ports: [{ servicePort: 80, targetPort: 8080 }],
      canonical: true,
    }),
  ],
  policies: [
    policyWith({
      key: 'other/l7-only',
      scope: 'workload-selector',
      action: 'allow',
      groups: [[[matchWith({})]]],
    }),
    policyWith({
      key: 'shop/no-strangers',
      groups: [[[matchWith({ notPrincipals: [{ kind: 'presence' }] })]]],
    }),
  ],
});

function matchWith(fields: Partial<AuthorizationMatch>): AuthorizationMatch {
  const none = {
    ...{ namespaces: [], notNamespaces: [], principals: [], notPrincipals: [] },
    ...{ sourceIps: [], notSourceIps: [], destinationIps: [], notDestinationIps: [] },
    ...{ destinationPorts: [], notDestinationPorts: [], serviceAccounts: [], notServiceAccounts: [] },
  };
  return { ...none, ...fields };
}

describe('authz explain', () => {
  let servers: AdminServers;
  let out: string;
  let err: string;
  let exclusions: Record<string, typeof noExclusions>;

  const explain = async (from: string, to: string, port: number, ...more: string[]) => {
    [out, err] = ['', ''];
    const terminal = {
      out(text: string) {
        out += text;
      },
      err(text: string) {
        err += text;
      },
      columns: null,
    };
    const env = { CULVERTCTL_AGENT: `127.0.0.1:${servers.admin.port}` };
    const argv = ['authz', 'explain', '--from', from, '--to', to, '--port', String(port), ...more];
    return await runCli(argv, env, { terminal, runProgram: async () => 1 });
  };
  const last = () => out.trimEnd().split('\n').at(-1);

  beforeEach(async () => {
    exclusions = {};
    const pod = (name: string, state = 'captured', reason = '') => ({
      uid: name,
      namespace: 'shop',
      name,
      state,
      reason,
      exclusions: exclusions[name] ?? noExclusions,
    });
    servers = await startAdmin(
      { admin: anywhere, metrics: anywhere, readiness: anywhere },
      {
        metrics: () => ({ contentType: 'text/plain', body: '' }),
        pending: () => [],
        config: {
          options: () => ({ node: 'a', network: '', trustDomain: 'cluster.local', trustDomainAliases: [] }),
          workloads: () => update,
          capture: () => ({
            pods: [pod('cart'), pod('web-1'), pod('broken', 'refused', 'ROUTE_LOCALNET: x')],
          }),
        },
        connections: () => [],
        logLevel: { levels: ['info'], get: () => 'info', set() {} },
        onError() {},
      },
    );
  });

  afterEach(() => servers.close());

  test('a pod that is captured: the policies decide', async () => {
    expect(await explain('shop/cart', 'shop/web-1', 8080)).toBe(0);
    expect(await explain('10.9.9.9', 'shop/web-1', 8080)).toBe(1);
    expect(last()).toMatch(
      /^10\.9\.9\.9 in plain text → 10\.0\.0\.2:8080: denied, .*explicitly denied by: shop\/no-strangers/,
    );
    expect(await explain('shop/cart', 'shop/web-1', 8080, '--plaintext')).toBe(1);
  });

  test('a pod outside of the mesh: nothing enforces there, whatever policies say; exit code 3', async () => {
    expect(await explain('10.9.9.9', 'shop/old', 8080)).toBe(3);
    expect(last()).toMatch(
      /: not enforced, whatever policies say it comes in: shop\/old is outside of the mesh\. They would deny it: /,
    );
    expect(await explain('10.9.9.9', 'shop/old', 8080, '-o', 'json')).toBe(3);
    expect(JSON.parse(out)).toMatchObject({
      to: 'shop/old',
      enforcement: { by: 'nobody', reason: 'is outside of the mesh' },
      verdict: { allowed: true, reason: 'not-enforced', policy: null },
      ifEnforced: { allowed: false, policy: 'shop/no-strangers' },
    });
  });

  test('a port that annotations exclude: not enforced against plain text, and still by HBONE', async () => {
    exclusions['web-1'] = { ...noExclusions, inboundPorts: [9090] };
    expect(await explain('10.9.9.9', 'shop/web-1', 9090)).toBe(3);
    expect(last()).toContain('shop/web-1 has port 9090 excluded by annotation');
    expect(await explain('10.9.9.9', 'shop/web-1', 8080)).toBe(1);
    expect(await explain('shop/cart', 'shop/web-1', 9090)).toBe(0);
    exclusions['web-1'] = { ...noExclusions, inboundPorts: [0] };
    expect(await explain('10.9.9.9', 'shop/web-1', 8080)).toBe(3);
  });

  test('a client whose annotations exclude what it dials comes in plain text', async () => {
    exclusions['cart'] = { ...noExclusions, outboundPorts: [80], outboundRanges: ['10.0.0.0/29'] };
    expect(await explain('shop/cart', 'shop/web-1', 8080)).toBe(1);
    expect(out).toContain('shop/cart excludes 10.0.0.0/29 by annotation: it connects in plain text');
    expect(await explain('shop/cart', 'shop/web', 80)).toBe(1);
    expect(out).toContain('shop/cart excludes port 80 by annotation');
  });

  test('a rule that only a waypoint could judge says so', async () => {
    expect(await explain('shop/cart', 'shop/by-path', 8080)).toBe(1);
    expect(out).toMatch(/^other\/l7-only .* never: L4 cannot judge it/m);
  });

  test('a pod that is refused: nothing gets in; one of another node: its agent judges, and knows its exclusions', async () => {
    expect(await explain('shop/cart', 'shop/broken', 8080)).toBe(1);
    expect(last()).toContain(
      'denied, nothing gets in: shop/broken is refused on this node: ROUTE_LOCALNET: x',
    );
    expect(await explain('10.9.9.9', 'shop/web-2', 8080)).toBe(1);
    expect(last()).toContain('is served by the agent of node b; whether its annotations exclude the port');
  });

  test('a service by its hostname, its name or its VIP: each endpoint, by its own port', async () => {
    for (const to of ['web.shop.svc.cluster.local', 'shop/web', '10.96.0.1']) {
      expect(await explain('shop/cart', to, 80)).toBe(0);
      expect(out).toMatch(/^shop\/web-1 +10\.0\.0\.2 +8080 +yes/m);
      expect(out).toMatch(/^shop\/web-2 +10\.0\.0\.3 +8080 +yes/m);
    }
    expect(await explain('shop/cart', 'shop/web', 80, '-o', 'json')).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      service: key,
      endpoints: [{ to: 'shop/web-1' }, { to: 'shop/web-2' }],
    });
    expect(await explain('shop/cart', 'shop/web', 81)).toBe(1);
    expect(err).toContain('has no endpoint with port 81; its ports are 80');
    expect(await explain('shop/cart', 'shop/web-1', 80)).toBe(0);
    expect(out).toContain(`port 80 of ${key} is port 8080 of the pod, by which policies judge`);
    expect(await explain('shop/cart', 'shop/nobody', 80)).toBe(1);
    expect(err).toContain('no workload or service shop/nobody');
  });

  test('a service with an endpoint where nothing is enforced: there it comes in', async () => {
    expect(await explain('shop/cart', 'shop/mixed', 80)).toBe(1);
    expect(out).toMatch(/^shop\/old +10\.0\.0\.4 +8080 +yes +whatever policies say it comes in/m);
    expect(out).toMatch(/^shop\/by-path +10\.0\.0\.6 +8080 +no /m);
  });
});
