import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { processesIn, waitFor } from '../lab/index.js';
import { familiesOf } from '../support/exposition.js';
import { ensureDiscovery } from './discovery.js';
import { type Cluster, startCluster } from './index.js';

// A real Prometheus (Debian's) in a pod finds agents and controllers by the API server and the chart's annotations, with the scrape configuration of
// docs/kubernetes.md and the chart's alerts, and is asked by PromQL over its HTTP API. Debian's is built without Kubernetes service discovery: Prometheus' own
// runs beside it (discovery.ts).

const SYSTEM = 'culvert-system';
const PATIENCE = { timeoutMs: 90_000, intervalMs: 250 };
const root = packageRoot();

let cluster: Cluster;

interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

async function ask<Answer>(path: string): Promise<Answer> {
  const text = await cluster.plane.api.raw(
    `/api/v1/namespaces/monitoring/pods/prometheus:9090/proxy/api/v1/${path}`,
  );
  return (JSON.parse(text) as { data: Answer }).data;
}

async function query(promql: string): Promise<readonly Sample[]> {
  return (await ask<{ result: readonly Sample[] }>(`query?query=${encodeURIComponent(promql)}`)).result;
}

/** The value of an expression that has one series; NaN where there is none. */
async function value(promql: string): Promise<number> {
  return Number((await query(promql))[0]?.value[1]);
}

/** As a reader of the page would copy it, but for who discovers. */
function scrapeConfig(): string {
  const page = readFileSync(join(root, 'docs/kubernetes.md'), 'utf8');
  const config = /```yaml\n(scrape_configs:[\s\S]*?)```/.exec(page)![1]!;
  const discovery = 'kubernetes_sd_configs: [{ role: pod }]';
  expect(config).toContain(discovery);
  return config.replace(
    discovery,
    "http_sd_configs: [{ url: 'http://localhost:9091/', refresh_interval: 1s }]",
  );
}

function prometheus(): object[] {
  const metadata = { name: 'prometheus', namespace: 'monitoring' };
  const rbac = 'rbac.authorization.k8s.io';
  const config = `global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [/etc/prometheus-culvert/rules.yaml]\n${scrapeConfig()}`;
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'monitoring' } },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRole',
      metadata,
      rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'watch'] }],
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata,
      subjects: [{ kind: 'ServiceAccount', ...metadata }],
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'prometheus' },
    },
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata,
      data: {
        'prometheus.yaml': config,
        'rules.yaml': readFileSync(join(root, 'charts/culvert/rules/culvert.yaml'), 'utf8'),
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata,
      spec: {
        serviceAccountName: 'prometheus',
        containers: [
          { name: 'discovery', image: 'prometheus-discovery', args: ['localhost:9091'] },
          {
            name: 'prometheus',
            image: 'prometheus',
            args: [
              '--config.file=/etc/prometheus-culvert/prometheus.yaml',
              '--storage.tsdb.path=/tmp/prometheus',
              '--web.listen-address=0.0.0.0:9090',
            ],
            readinessProbe: { httpGet: { port: 9090, path: '/-/ready' }, periodSeconds: 1 },
            volumeMounts: [{ name: 'config', mountPath: '/etc/prometheus-culvert' }],
          },
        ],
        volumes: [{ name: 'config', configMap: { name: 'prometheus' } }],
      },
    },
  ];
}

function pod(name: string, nodeName: string, container: object): object[] {
  const metadata = { name, namespace: 'shop', labels: { app: name } };
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace: 'shop' } },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata,
      spec: {
        nodeName,
        serviceAccountName: name,
        terminationGracePeriodSeconds: 1,
        containers: [{ name: 'main', ...container }],
      },
    },
  ];
}

beforeAll(async () => {
  const onProgress = (line: string) =>
    void process.stderr.write(`${line}
`);
  const images = {
    prometheus: { entrypoint: ['prometheus'] },
    'prometheus-discovery': { entrypoint: [await ensureDiscovery(onProgress)] },
  };
  cluster = await startCluster({ nodes: ['a', 'b'], images, onProgress });
  await cluster.plane.apply(...prometheus(), {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } },
  });
  const install = ['install', 'culvert', join(root, 'charts/culvert'), '-n', SYSTEM, '--create-namespace'];
  await cluster.plane.helm(...install, '--wait', '--timeout', '110s');
  await cluster.plane.apply(
    ...pod('client', 'a', { image: 'busybox', args: ['sleep', 'infinity'] }),
    ...pod('server', 'b', { image: 'culvert-test/http-echo' }),
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'server', namespace: 'shop' },
      spec: { selector: { app: 'server' }, ports: [{ port: 80, targetPort: 8080 }] },
    },
  );
  await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod', '--all', '--timeout=60s');
  await cluster.kubectl('wait', '-n', 'monitoring', '--for=condition=Ready', 'pod', '--all', '--timeout=60s');
}, 3_600_000);

afterAll(() => cluster?.close());

async function podsOf(program: string): Promise<readonly string[]> {
  const names = await cluster.kubectl(
    'get',
    'pods',
    '-n',
    SYSTEM,
    '-l',
    `app.kubernetes.io/name=culvert-${program}`,
    '-o',
    'name',
  );
  return names
    .split('\n')
    .filter(Boolean)
    .map((name) => name.slice('pod/'.length));
}

test('every agent and controller is found by its annotations, scraped, and labelled by pod and node', async () => {
  const wanted = [...(await podsOf('agent')), ...(await podsOf('controller'))];
  expect(wanted).toHaveLength(4);
  await waitFor(
    'all to be up',
    async () => (await value(`sum(up{namespace="${SYSTEM}"})`)) === wanted.length,
    PATIENCE,
  );
  const up = await query(`up{namespace="${SYSTEM}"}`);
  expect(up.map(({ metric }) => metric['pod']).toSorted()).toEqual(wanted.toSorted());
  expect(up.map((sample) => sample.value[1])).toEqual(wanted.map(() => '1'));
  expect(new Set(up.map(({ metric }) => metric['node']))).toEqual(new Set(['a', 'b']));
  // Nothing else has annotations here.
  expect(await value('count(up)')).toBe(wanted.length);
}, 180_000);

const serverVip = () =>
  cluster.kubectl('get', 'service', '-n', 'shop', 'server', '-o', 'jsonpath={.spec.clusterIP}');

test('the golden metrics of L4: both reporters tell of the same connections, with the same labels', async () => {
  const vip = await serverVip();
  const ours = 'source_workload="client",destination_workload="server"';
  const opened = `istio_tcp_connections_opened_total{${ours}}`;
  for (let i = 0; i < 5; i++)
    await cluster.kubectl('exec', '-n', 'shop', 'client', '--', 'curl', '-sf', `http://${vip}/`);
  await waitFor(
    'both reporters',
    async () => (await value(`sum(istio_tcp_connections_closed_total{${ours}})`)) === 10,
    PATIENCE,
  );
  const series = await query(opened);
  expect(
    series.map(({ metric, value: [, count] }) => [metric['reporter'], metric['node'], count]).toSorted(),
  ).toEqual([
    ['destination', 'b', '5'],
    ['source', 'a', '5'],
  ]);
  for (const { metric } of series)
    expect(metric).toMatchObject({
      source_workload_namespace: 'shop',
      source_principal: 'spiffe://cluster.local/ns/shop/sa/client',
      source_app: 'client',
      source_canonical_service: 'client',
      source_cluster: 'Kubernetes',
      destination_workload_namespace: 'shop',
      destination_principal: 'spiffe://cluster.local/ns/shop/sa/server',
      destination_service: 'server.shop.svc.cluster.local',
      destination_service_name: 'server',
      destination_service_namespace: 'shop',
      destination_canonical_service: 'server',
      request_protocol: 'tcp',
      response_flags: '-',
      connection_security_policy: 'mutual_tls',
    });
  const bytes = (name: string, reporter: string) =>
    value(`sum(istio_tcp_${name}_bytes_total{${ours},reporter="${reporter}"})`);
  // Requests are received, answers sent, whoever reports.
  expect(await bytes('received', 'source')).toBe(await bytes('received', 'destination'));
  expect(await bytes('sent', 'source')).toBe(await bytes('sent', 'destination'));
  expect(await bytes('sent', 'source')).toBeGreaterThan(await bytes('received', 'source'));
  expect(await value('sum(istio_tcp_sockets_open)')).toBe(0);
  // What is there when a series is first scraped is no increase.
  const isRated = async () => {
    await cluster.kubectl('exec', '-n', 'shop', 'client', '--', 'curl', '-sf', `http://${vip}/`);
    return (await value(`sum(rate(${opened}[1m]))`)) > 0;
  };
  await waitFor('a rate', isRated, PATIENCE);
}, 180_000);

test('a connection that a policy refuses is counted as failed, by both, and by its policy', async () => {
  await cluster.plane.apply({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'nobody', namespace: 'shop' },
    spec: { selector: { matchLabels: { app: 'server' } } },
  });
  const vip = await serverVip();
  const isRefused = () =>
    cluster.kubectl('exec', '-n', 'shop', 'client', '--', 'curl', '-sf', `http://${vip}/`).then(
      () => false,
      () => true,
    );
  await waitFor('the policy', isRefused, PATIENCE);
  await waitFor(
    'the refusal',
    async () =>
      (await value('sum(culvert_policy_denials_total)')) > 0 &&
      (await query('count by (reporter) (istio_tcp_connections_failed_total{destination_workload="server"})'))
        .length === 2,
    PATIENCE,
  );
  expect(
    await value('max(istio_tcp_connections_failed_total{reporter="destination",response_flags="DENY"})'),
  ).toBeGreaterThan(0);
}, 180_000);

test('promtool has nothing to say against what they serve, and docs/metrics.md has it all', async () => {
  const documented = new Set(
    [...readFileSync(join(root, 'docs/metrics.md'), 'utf8').matchAll(/^\| `(\w+)` \| (\w+) \|/gm)].map(
      (match) => `${match[1]} ${match[2]}`,
    ),
  );
  for (const [program, port] of [
    ['agent', 15020],
    ['controller', 15014],
  ] as const)
    for (const name of await podsOf(program)) {
      const text = await cluster.plane.api.raw(
        `/api/v1/namespaces/${SYSTEM}/pods/${name}:${port}/proxy/metrics`,
      );
      expect(execFileSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })).toBe('');
      const unknown = familiesOf(text).filter(
        ({ name: metric, type }) =>
          !/^(process|nodejs)_/.test(metric) && !documented.has(`${metric} ${type}`),
      );
      expect(unknown.map(({ name: metric }) => metric)).toEqual([]);
    }
}, 120_000);

test('the mesh tells of its own health: watches by kind, one leader, subscriptions, TokenReviews; Istio names by rule', async () => {
  await waitFor('one leader', async () => (await value('sum(culvert_leader)')) === 1, PATIENCE);
  expect(await value('sum(culvert_agent_ready)')).toBe(2);
  expect(await value('sum(culvert_controller_ready)')).toBe(2);
  expect(await value('sum(pilot_xds)')).toBe(2);
  expect(await value('sum(culvert_xds_subscriptions{state="synced"})')).toBeGreaterThanOrEqual(4);
  for (const kind of ['Pod', 'Service', 'Namespace', 'AuthorizationPolicy'])
    expect(
      await value(
        `max(culvert_source_age_seconds{pod=~"culvert-controller-.+",source="kubernetes/${kind}"})`,
      ),
    ).toBeLessThan(120);
  expect(await value('sum(culvert_token_review_seconds_count{outcome="authenticated"})')).toBeGreaterThan(0);
  expect(await value('sum(citadel_server_success_cert_issuance_count)')).toBe(
    await value('sum(culvert_ca_certificates_issued_total)'),
  );
}, 120_000);

test("the chart's alerts are evaluated; none is pending while all is well, and one is when an agent has gone", async () => {
  const { groups } = await ask<{
    groups: { rules: { name: string; health: string; lastError?: string }[] }[];
  }>('rules');
  const rules = groups.flatMap((group) => group.rules);
  expect(rules.length).toBeGreaterThan(30);
  expect(rules.filter(({ health }) => health !== 'ok')).toEqual([]);
  const pending = async () =>
    (await ask<{ alerts: { labels: { alertname: string; node?: string } }[] }>('alerts')).alerts.map(
      ({ labels }) => labels,
    );
  // What is below its time is forgotten: nothing may last.
  await waitFor('no alert', async () => (await pending()).length === 0, PATIENCE);
  cluster.nodes[0]!.kubelet.signal('SIGSTOP');
  endAgent();
  await waitFor(
    'the alert',
    async () =>
      (await pending()).some(({ alertname, node }) => alertname === 'CulvertAgentDown' && node === 'a'),
    PATIENCE,
  );
  cluster.nodes[0]!.kubelet.signal('SIGCONT');
  await waitFor(
    'its end',
    async () => !(await pending()).some(({ alertname }) => alertname === 'CulvertAgentDown'),
    PATIENCE,
  );
}, 240_000);

/** Kills the agent's process of node a; its kubelet, which would start it again, stands still. */
function endAgent(): void {
  const isAgent = (pid: number) =>
    readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('dist/agent/main.js');
  for (const pid of processesIn(cluster.nodes[0]!.machine.kubepods).filter(isAgent))
    process.kill(pid, 'SIGKILL');
}
