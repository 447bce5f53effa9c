import { beforeEach, describe, expect, test } from '@jest/globals';
import { serviceWith, workloadWith } from '../store/fixtures.js';
import type { Workload } from '../store/index.js';
import { ConnectionTelemetry, type ConnectionTelemetryOptions } from './connections.js';
import { TcpMetrics } from './tcp-metrics.js';
import type { ConnectionInfo, Party } from './types.js';

const MINUTE_MS = 60_000;

const web = workloadWith({
  uid: 'c1//Pod/shop/web-1',
  name: 'web-1',
  namespace: 'shop',
  workloadName: 'web',
  canonicalName: 'web-app',
  canonicalRevision: 'v2',
  clusterId: 'c1',
  locality: { region: 'eu', zone: 'eu-1', subzone: '' },
});
const cart = workloadWith({
  uid: 'c1//Pod/shop/cart-1',
  name: 'cart-1',
  namespace: 'shop',
  workloadName: 'cart',
  clusterId: 'c1',
});
const cartService = serviceWith({ hostname: 'cart.shop.svc.cluster.local', name: 'cart', namespace: 'shop' });

function party(workload: Workload | null, changes: Partial<Party> = {}): Party {
  return {
    workload,
    baggage: null,
    identity: `spiffe://cluster.local/ns/shop/sa/${workload?.workloadName}`,
    ...changes,
  };
}

function infoWith(changes: Partial<ConnectionInfo> = {}): ConnectionInfo {
  return {
    reporter: 'source',
    source: party(web),
    destination: party(cart),
    service: cartService,
    mutualTls: true,
    sourceAddress: { address: '10.0.0.1', port: 40_000 },
    destinationAddress: { address: '10.0.0.2', port: 15008 },
    hboneAddress: { address: '10.0.0.2', port: 8080 },
    ...changes,
  };
}

let nowMs: number;
let worker: ConnectionTelemetry;
let metrics: TcpMetrics;

function newWorker(options: Partial<ConnectionTelemetryOptions> = {}): ConnectionTelemetry {
  return new ConnectionTelemetry(
    { accessLog: 'text', ...options },
    { nowMs: () => nowMs, wallClockMs: () => 1_700_000_000_000 + nowMs },
  );
}

/** Hands over what a worker has, as a message would; returns its log lines. */
function handOver(from: ConnectionTelemetry = worker, id = 1): string {
  const batch = from.takeBatch();
  if (batch === null) return '';
  metrics.merge(id, structuredClone(batch));
  return batch.lines;
}

/** Samples of one metric: label text and value. */
function samplesOf(name: string): [string, number][] {
  const family = metrics.collect().find((candidate) => candidate.name === name)!;
  return family.samples.map(({ labels, value }) => [labels, value]);
}

function valuesOf(name: string): number[] {
  return samplesOf(name).map(([, value]) => value);
}

beforeEach(() => {
  nowMs = 1_000;
  worker = newWorker();
  metrics = new TcpMetrics({}, { nowMs: () => nowMs });
});

describe('TCP metrics', () => {
  test('have the labels of the sheet, in its order', () => {
    worker.opened(infoWith());
    handOver();
    expect(samplesOf('istio_tcp_connections_opened_total')).toEqual([
      [
        'reporter="source",source_workload="web",source_canonical_service="web-app",source_canonical_revision="v2",' +
          'source_workload_namespace="shop",source_principal="spiffe://cluster.local/ns/shop/sa/web",source_app="web-app",' +
          'source_version="v2",source_cluster="c1",destination_service="cart.shop.svc.cluster.local",' +
          'destination_service_namespace="shop",destination_service_name="cart",destination_workload="cart",' +
          'destination_canonical_service="unknown",destination_canonical_revision="unknown",' +
          'destination_workload_namespace="shop",destination_principal="spiffe://cluster.local/ns/shop/sa/cart",' +
          'destination_app="unknown",destination_version="unknown",destination_cluster="c1",request_protocol="tcp",' +
          'response_flags="-",connection_security_policy="mutual_tls",source_region="eu",source_zone="eu-1",' +
          'destination_region="unknown",destination_zone="unknown"',
        1,
      ],
    ]);
  });

  test('count connections and bytes while they run, and failures under their flag', () => {
    const record = worker.opened(infoWith());
    record.addReceived(100);
    record.addSent(2_000);
    handOver();
    expect(valuesOf('istio_tcp_received_bytes_total')).toEqual([100]);
    expect(valuesOf('istio_tcp_sent_bytes_total')).toEqual([2_000]);
    expect(valuesOf('istio_tcp_connections_closed_total')).toEqual([0]);
    expect(samplesOf('istio_tcp_sockets_open')).toEqual([
      ['reporter="source"', 1],
      ['reporter="destination"', 0],
    ]);
    record.addSent(5);
    record.closed({ flag: 'CONNECT', message: 'refused' });
    record.closed(null);
    worker.refused(infoWith(), { flag: 'DENY', message: 'policy' });
    handOver();
    expect(valuesOf('istio_tcp_sent_bytes_total')).toEqual([2_005]);
    expect(valuesOf('istio_tcp_connections_opened_total')).toEqual([1]);
    expect(valuesOf('istio_tcp_connections_closed_total')).toEqual([1]);
    const failed = samplesOf('istio_tcp_connections_failed_total');
    expect(failed.map(([labels, value]) => [/response_flags="([^"]*)"/.exec(labels)![1], value])).toEqual([
      ['CONNECT', 1],
      ['DENY', 1],
    ]);
    expect(valuesOf('istio_tcp_sockets_open')).toEqual([0, 0]);
  });

  test('count what each policy denies, or would deny', () => {
    const other = newWorker();
    const trial = { policy: 'shop/trial', rule: 2, reason: 'denied' };
    const denied = { allowed: false, policy: 'shop/p', rule: 0, reason: 'denied', dryRun: [] };
    const allowed = { ...denied, allowed: true, policy: null, rule: null, dryRun: [trial] };
    const nobody = { ...denied, policy: null, rule: null, reason: 'not-allowed' };
    const failure = { flag: 'DENY' as const, message: 'policy' };
    for (const one of [worker, worker, other]) one.refused(infoWith({ verdict: denied }), failure);
    worker.opened(infoWith({ verdict: allowed })).closed({ ...failure, verdict: nobody });
    other.opened(infoWith({ verdict: allowed })).closed(null);
    handOver(worker, 1);
    handOver(other, 2);
    expect(worker.takeBatch()).toBeNull();
    expect(samplesOf('culvert_policy_denials_total').sort()).toEqual([
      ['policy="",reason="not-allowed",dry_run="false"', 1],
      ['policy="shop/p",reason="denied",dry_run="false"', 3],
      ['policy="shop/trial",reason="denied",dry_run="true"', 2],
    ]);
  });

  test('an unknown peer is labelled by its baggage, everything missing is unknown', () => {
    const claimed = {
      workloadName: 'job',
      namespace: 'far',
      serviceName: 'jobs',
      clusterName: 'c2',
      region: 'us',
    };
    const source = party(null, { baggage: claimed, identity: null });
    worker.opened(infoWith({ reporter: 'destination', source, service: null, mutualTls: false }));
    handOver();
    const [[labels]] = samplesOf('istio_tcp_connections_opened_total') as [[string, number]];
    expect(labels).toContain(
      'source_workload="job",source_canonical_service="jobs",source_canonical_revision="unknown"',
    );
    expect(labels).toContain('source_principal="unknown"');
    expect(labels).toContain('destination_service="unknown"');
    expect(labels).toContain('connection_security_policy="unknown",source_region="us"');
  });

  test('one label set is one cell, however many workers and connections', () => {
    const other = newWorker();
    for (const one of [worker, other, worker]) one.opened(infoWith()).closed(null);
    handOver(worker, 1);
    handOver(other, 2);
    expect(valuesOf('istio_tcp_connections_opened_total')).toEqual([2 + 1]);
  });

  test('a workload that is updated under its uid gets its new labels', () => {
    worker.opened(infoWith()).closed(null);
    worker.opened(infoWith({ source: party({ ...web, canonicalRevision: 'v3' }) })).closed(null);
    worker.opened(infoWith()).closed(null);
    handOver();
    const revisions = samplesOf('istio_tcp_connections_opened_total').map(
      ([labels, value]) => [/source_version="([^"]*)"/.exec(labels)![1], value] as const,
    );
    expect(revisions).toEqual([
      ['v2', 2],
      ['v3', 1],
    ]);
  });

  test('nothing new is no batch', () => {
    worker.opened(infoWith()).closed(null);
    expect(worker.takeBatch()).not.toBeNull();
    expect(worker.takeBatch()).toBeNull();
  });

  test('idle label sets are evicted, those with open connections stay', () => {
    const idle = worker.opened(infoWith());
    const open = worker.opened(infoWith({ service: null }));
    idle.closed(null);
    handOver();
    nowMs += 16 * MINUTE_MS;
    handOver();
    expect(valuesOf('istio_tcp_connections_opened_total')).toEqual([1]); // by worker and main: idle just as long
    worker.opened(infoWith()).closed(null);
    open.addSent(7);
    handOver();
    expect(valuesOf('istio_tcp_connections_opened_total').sort()).toEqual([1, 1]);
    expect(valuesOf('istio_tcp_sent_bytes_total').sort()).toEqual([0, 7]);
  });

  test('a label set that another worker still uses is not evicted', () => {
    const other = newWorker();
    const open = other.opened(infoWith());
    worker.opened(infoWith()).closed(null);
    handOver(worker, 1);
    handOver(other, 2);
    nowMs += 16 * MINUTE_MS;
    handOver(worker, 1);
    nowMs += 16 * MINUTE_MS;
    expect(valuesOf('istio_tcp_connections_opened_total')).toEqual([2]);
    open.closed(null);
    handOver(other, 2);
    expect(valuesOf('istio_tcp_connections_closed_total')).toEqual([2]);
  });

  test('label sets that no worker holds any more go after a while, also where nobody scrapes', () => {
    for (let pod = 0; pod < 10; pod++) {
      const guest = workloadWith({ uid: `c1//Pod/shop/guest-${pod}`, workloadName: `guest-${pod}` });
      worker.opened(infoWith({ source: party(guest) })).closed(null);
      handOver();
    }
    expect(metrics.size).toBe(10);
    for (let passed = 0; passed < 32; passed++) {
      nowMs += MINUTE_MS;
      worker.opened(infoWith()).closed(null);
      handOver();
    }
    expect(metrics.size).toBe(1);
  });

  test('the connections of a lost worker count as closed; its successor starts anew', () => {
    worker.opened(infoWith());
    worker.opened(infoWith()).closed(null);
    handOver();
    metrics.workerLost(1);
    expect(valuesOf('istio_tcp_connections_closed_total')).toEqual([2]);
    worker = newWorker();
    worker.opened(infoWith());
    handOver();
    expect(valuesOf('istio_tcp_connections_opened_total')).toEqual([3]);
    expect(valuesOf('istio_tcp_sockets_open')).toEqual([1, 0]);
  });

  test('label sets are bounded: what comes on top shares one', () => {
    worker = newWorker({ maxCells: 3 });
    for (let i = 0; i < 10; i++) {
      worker
        .opened(infoWith({ source: party(null, { baggage: { workloadName: `made-up-${i}` } }) }))
        .closed(null);
    }
    handOver();
    const samples = samplesOf('istio_tcp_connections_opened_total');
    expect(samples.map(([, value]) => value)).toEqual([1, 1, 1, 7]);
    expect(samples[3]![0]).toContain('reporter="source",source_workload="unknown"');
  });
});

describe('access log', () => {
  const CLIENT =
    'src.addr=10.0.0.1:40000 src.workload="web-1" src.namespace="shop" src.identity="spiffe://cluster.local/ns/shop/sa/web" src.cluster="c1"';
  const SERVER =
    'dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080 dst.service="cart.shop.svc.cluster.local" dst.workload="cart-1" ' +
    'dst.namespace="shop" dst.identity="spiffe://cluster.local/ns/shop/sa/cart" dst.cluster="c1"';

  function transfer(info: ConnectionInfo): void {
    const record = worker.opened(info);
    record.addReceived(100);
    record.addSent(2_000);
    nowMs += 12;
    record.closed(null);
  }

  test('one line at close, fields in the order of the sheet, bytes from the reporter’s side', () => {
    transfer(infoWith());
    transfer(infoWith({ reporter: 'destination' }));
    expect(handOver().split('\n')).toEqual([
      `2023-11-14T22:13:21.012Z\tinfo\taccess\tconnection complete\t${CLIENT} ${SERVER} direction="outbound" bytes_sent=100 bytes_recv=2000 duration="12ms"`,
      `2023-11-14T22:13:21.024Z\tinfo\taccess\tconnection complete\t${CLIENT} ${SERVER} direction="inbound" bytes_sent=2000 bytes_recv=100 duration="12ms"`,
      '',
    ]);
  });

  test('identities only with mTLS; what is not known is left out', () => {
    const nobody = party(null);
    transfer(
      infoWith({ source: nobody, destination: nobody, service: null, mutualTls: false, hboneAddress: null }),
    );
    expect(handOver()).toMatch(
      /\tsrc\.addr=10\.0\.0\.1:40000 dst\.addr=10\.0\.0\.2:15008 direction="outbound" bytes_sent=100 bytes_recv=2000 duration="12ms"\n$/,
    );
  });

  test('a failure is an error, an early denial a warning, opening a debug line if wanted', () => {
    worker.logOpened = true;
    worker.opened(infoWith()).closed({ flag: 'CONNECT', message: 'connection refused by "app"' });
    worker.refused(infoWith(), { flag: 'DENY', message: 'policy shop/p' });
    const [opened, failed, denied] = handOver().split('\n');
    expect(opened).toMatch(/\tdebug\taccess\tconnection opened\tsrc\.addr.* direction="outbound"$/);
    expect(failed).toMatch(
      /\terror\taccess\tconnection complete\t.* duration="0ms" error="connection refused by \\"app\\""$/,
    );
    expect(denied).toMatch(
      /\twarn\taccess\tconnection failed\t.* direction="outbound" error="policy shop\/p"$/,
    );
  });

  test('names the policy and rule that allowed, and those on trial that would not have', () => {
    const dryRun = [
      { policy: 'shop/trial', rule: 2, reason: 'denied' },
      { policy: null, rule: null, reason: 'not-allowed' },
    ];
    const allowed = { allowed: true, policy: 'shop/p', rule: 1, reason: 'allowed', dryRun };
    transfer(infoWith({ reporter: 'destination', verdict: allowed }));
    expect(handOver()).toMatch(
      / duration="12ms" policy="shop\/p#1" policy_dry_run="shop\/trial#2 not-allowed"\n$/,
    );
    const byAbsence = {
      allowed: true,
      policy: null,
      rule: null,
      reason: 'no-allow-policy',
      dryRun: Array.from({ length: 20 }, () => dryRun[0]!),
    };
    transfer(infoWith({ reporter: 'destination', verdict: byAbsence }));
    expect(handOver()).toMatch(/ duration="12ms" policy_dry_run="(shop\/trial#2 ){8}and 12 more"\n$/);
  });

  test('names the policy that denied, before it was opened or later', () => {
    const denied = { allowed: false, policy: 'shop/p', rule: 0, reason: 'denied', dryRun: [] };
    const allowed = { allowed: true, policy: 'shop/before', rule: 0, reason: 'allowed', dryRun: [] };
    const failure = { flag: 'DENY' as const, message: 'explicitly denied by: shop/p' };
    worker.refused(infoWith({ verdict: denied }), failure);
    worker.opened(infoWith({ verdict: allowed })).closed({ ...failure, verdict: denied });
    worker.opened(infoWith({ verdict: allowed })).closed({ flag: 'CONNECT', message: 'reset' });
    const [refused, closed, reset] = handOver().split('\n');
    for (const line of [refused, closed])
      expect(line).toMatch(/ policy="shop\/p#0" error="explicitly denied by: shop\/p"$/);
    expect(reset).toMatch(/ policy="shop\/before#0" error="reset"$/);
  });

  test('as JSON: the same fields, numbers as numbers', () => {
    worker = newWorker({ accessLog: 'json' });
    transfer(infoWith());
    const line = JSON.parse(handOver());
    expect(Object.keys(line).slice(0, 6)).toEqual([
      'level',
      'time',
      'scope',
      'message',
      'src.addr',
      'src.workload',
    ]);
    expect(line).toMatchObject({
      scope: 'access',
      message: 'connection complete',
      bytes_sent: 100,
      duration: '12ms',
    });
    expect(line['dst.hbone_addr']).toBe('10.0.0.2:8080');
  });

  test.each(['text', 'json'] as const)('a claimed name cannot forge a line (%s)', (accessLog) => {
    worker = newWorker({ accessLog });
    const source = party(null, { baggage: { workloadName: 'x"\n2023 error="forged' } });
    transfer(infoWith({ source }));
    expect(handOver().split('\n')).toHaveLength(2);
  });

  test('lines that main does not fetch are bounded and counted', () => {
    worker = newWorker({ maxBufferedLogChars: 1_000 });
    for (let i = 0; i < 10; i++) transfer(infoWith());
    const lines = handOver().split('\n').length - 1;
    expect(lines).toBeGreaterThan(1);
    expect(valuesOf('culvert_access_log_dropped_lines_total')).toEqual([10 - lines]);
  });

  test('off: metrics only', () => {
    worker = newWorker({ accessLog: null });
    transfer(infoWith());
    expect(handOver()).toBe('');
  });
});
