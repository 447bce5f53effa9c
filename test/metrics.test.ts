import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { DnsCells, dnsMetricFamilies } from '../agent/dns/metrics.js';
import { agentMetrics } from '../agent/metrics.js';
import type { WorkerReport } from '../agent/tunnel/index.js';
import { createMetrics } from '../control/metrics.js';
import {
  MetricsRegistry,
  processMetrics,
  TCP_LABEL_NAMES,
  TcpMetrics,
  xdsMetrics,
} from '../mesh/telemetry/index.js';
import { packageRoot } from '../native/package-root.js';
import { type Family, familiesOf } from './support/exposition.js';

// What agents and controllers show, held to Prometheus' conventions (promtool) and to docs/metrics.md. UPDATE_DOCS=1 rewrites its tables.

const file = join(packageRoot(), 'docs/metrics.md');

function agentText(): string {
  const registry = new MetricsRegistry();
  registry.add(processMetrics({ component: 'agent', tag: 'dev' }));
  const tcp = new TcpMetrics({}, { nowMs: () => 0 });
  tcp.merge(0, {
    cells: [
      {
        id: 1,
        labels: TCP_LABEL_NAMES.map((name) => (name === 'reporter' ? 'source' : name)),
        opened: 2,
        closed: 1,
        failed: 1,
        sentBytes: 5,
        receivedBytes: 7,
      },
    ],
    evicted: [],
    policyDenials: [{ policy: 'shop/p', reason: 'denied', dryRun: false, count: 1 }],
    droppedLines: 0,
    lines: '',
  });
  registry.add(() => tcp.collect());
  const dns = new DnsCells();
  dns.cell(['A', 'udp', 'cart', 'v1']);
  registry.add(() => dnsMetricFamilies(dns.all()));
  registry.add(
    xdsMetrics(() => ({
      controller: 'c:15012',
      isConnected: true,
      isReady: true,
      pending: [],
      lastError: null,
      terminations: { ConnectionError: 3, Error: 0, Reconnect: 0, Complete: 1 },
      types: [
        {
          typeUrl: 'T',
          messages: 2,
          messageBytes: 3,
          ageMs: 15,
          resources: 5,
          rejected: new Map([['bad', 'why']]),
        },
      ],
    })),
  );
  registry.add(agentMetrics(agentSources()));
  return registry.render(undefined).body;
}

function agentSources(): Parameters<typeof agentMetrics>[0] {
  const numbers = new Proxy(
    {},
    { get: () => 1, ownKeys: () => ['resetUnknown'], getOwnPropertyDescriptor: property },
  );
  const report = { lagMs: 1, tunnel: numbers, hbone: numbers, engine: numbers } as unknown as WorkerReport;
  const pod = { uid: 'u', name: 'cart', namespace: 'shop', state: 'captured', reason: '' };
  const capture = { pods: [pod], unknownPods: 0, refusals: { refused_unknown: 1 } };
  return {
    isReady: () => true,
    capture: () => capture as unknown as ReturnType<Parameters<typeof agentMetrics>[0]['capture']>,
    certificates: () => [
      {
        identity: 'spiffe://cluster.local/ns/shop/sa/cart',
        state: 'valid',
        activity: 'idle',
        serial: '01',
        notBefore: '2026-01-01T00:00:00Z',
        notAfter: '2026-01-02T00:00:00Z',
        failures: 0,
        lastError: null,
      },
    ],
    revocations: () => ({ revokedCertificates: 0, problems: [] }),
    sourceAges: () => new Map([['kubernetes/Pod', 5]]),
    pool: { restarts: 0, connectionsLost: 0 },
    workers: () => [report],
    drained: () => ({ ended: 0, reset: 0 }),
  };
}

function property(): PropertyDescriptor {
  return { enumerable: true, configurable: true, value: 1 };
}

async function controllerText(): Promise<string> {
  const metrics = createMetrics();
  const type = 'type.googleapis.com/istio.workload.Address';
  metrics.xds.connected();
  metrics.xds.pushed(type, 1, 10);
  metrics.xds.acknowledged(type, 5, 10);
  metrics.xds.rejected(type);
  metrics.xds.refused('reason');
  metrics.ca.issued();
  metrics.authn.reviewed('authenticated', 5);
  metrics.observe({
    isReady: () => true,
    writeback: () => null,
    clients: () => [
      {
        node: 'a',
        id: 'a',
        connectedMs: 1,
        types: [{ typeUrl: type, state: 'synced', nacks: 0, lastNack: null }],
      },
    ],
    backlog: () => ({ bytes: 1, waiting: 1 }),
    resources: () => new Map([[type, 3]]),
    manifestProblems: () => 0,
    reports: () => 0,
    sourceAges: () => new Map([['kubernetes/Pod', 5]]),
    expiries: () => ({ rootMs: 1e12, chainMs: 1e12, roots: 1 }),
  });
  return await metrics.registry.metrics();
}

/** Of every program by its language; named once above the tables. */
const isCommon = ({ name }: Family) => /^(process|nodejs)_/.test(name);

function tableOf(families: readonly Family[]): string {
  const rows = families
    .filter((family) => !isCommon(family))
    .toSorted((a, b) => a.name.localeCompare(b.name))
    .map(({ name, type, labels, help }) => {
      const shown = labels.filter((label) => label !== 'le');
      const text =
        shown.length > 10 ? 'those of TCP, above' : shown.map((label) => `\`${label}\``).join(', ') || '-';
      return `| \`${name}\` | ${type} | ${text} | ${help} |`;
    });
  return ['| metric | type | labels | what it says |', '|---|---|---|---|', ...rows].join('\n');
}

const programs = [
  ['agent', async () => agentText()],
  ['controller', controllerText],
] as const;

describe.each(programs)('%s', (program, textOf) => {
  test('promtool has nothing to say against its metrics', async () => {
    expect(execFileSync('promtool', ['check', 'metrics'], { input: await textOf() }).toString()).toBe('');
  });

  test('docs/metrics.md has them all, as they are (UPDATE_DOCS=1 rewrites it)', async () => {
    const marker = (what: string) => `<!-- ${what} ${program} (test/metrics.test.ts writes it) -->\n`;
    const doc = readFileSync(file, 'utf8');
    const from = doc.indexOf(marker('begin')) + marker('begin').length;
    const to = doc.indexOf(marker('end'));
    expect(from).toBeLessThanOrEqual(to);
    const table = `${tableOf(familiesOf(await textOf()))}\n`;
    if (process.env['UPDATE_DOCS'] === '1') writeFileSync(file, doc.slice(0, from) + table + doc.slice(to));
    else expect(doc.slice(from, to)).toBe(table);
  });
});
