import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { CaEvents } from './ca/index.js';
import type { XdsEvents } from './xds/index.js';

/** What the controller's metrics read when they are scraped. */
export interface MetricSources {
  readonly resources: () => ReadonlyMap<string, number>;
  readonly manifestProblems: () => number;
}

/** The controller's metrics in one registry, and the event sinks that feed them. */
export interface ControllerMetrics {
  readonly registry: Registry;
  readonly xds: XdsEvents;
  readonly ca: CaEvents;
  /** Once the sources exist. */
  observe(sources: MetricSources): void;
}

/** Label `type`: the message's name without its package's URL. */
function shortType(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
}

export function createMetrics(): ControllerMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const refusals = new Counter({
    name: 'culvert_refusals_total',
    help: 'Streams and certificates refused.',
    labelNames: ['service', 'reason'],
    registers,
  });
  return {
    registry,
    xds: xdsEvents(registers, refusals),
    ca: caEvents(registers, refusals),
    observe: (sources) => observe(registers, sources),
  };
}

type Refusals = Counter<'service' | 'reason'>;

function xdsEvents(registers: Registry[], refusals: Refusals): XdsEvents {
  const counter = (name: string, help: string) =>
    new Counter({ name, help, labelNames: ['type'], registers });
  const connected = new Gauge({ name: 'culvert_xds_connected_agents', help: 'Open xDS streams.', registers });
  const pushes = counter('culvert_xds_pushes_total', 'Responses sent.');
  const resources = counter('culvert_xds_pushed_resources_total', 'Resources sent or removed in responses.');
  const bytes = counter('culvert_xds_pushed_bytes_total', 'Bytes of responses.');
  const nacks = counter('culvert_xds_nacks_total', 'Responses rejected.');
  const roundTrips = new Histogram({
    name: 'culvert_xds_ack_seconds',
    help: 'From a push to its ACK.',
    labelNames: ['type'],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers,
  });
  return {
    connected: () => connected.inc(),
    disconnected: () => connected.dec(),
    pushed: (typeUrl, count, size) => {
      const type = shortType(typeUrl);
      pushes.inc({ type });
      resources.inc({ type }, count);
      bytes.inc({ type }, size);
    },
    acknowledged: (typeUrl, ms) => roundTrips.observe({ type: shortType(typeUrl) }, ms / 1000),
    rejected: (typeUrl) => nacks.inc({ type: shortType(typeUrl) }),
    refused: (reason) => refusals.inc({ service: 'xds', reason }),
  };
}

function caEvents(registers: Registry[], refusals: Refusals): CaEvents {
  const csrs = new Counter({
    name: 'culvert_csrs_total',
    help: 'Certificates asked for.',
    labelNames: ['result'],
    registers,
  });
  return {
    issued: () => csrs.inc({ result: 'issued' }),
    refused: (reason) => {
      csrs.inc({ result: 'refused' });
      refusals.inc({ service: 'ca', reason });
    },
    failed: () => csrs.inc({ result: 'failed' }),
  };
}

function observe(registers: Registry[], sources: MetricSources): void {
  new Gauge({
    name: 'culvert_xds_resources',
    help: 'Resources served.',
    labelNames: ['type'],
    registers,
    collect() {
      for (const [typeUrl, size] of sources.resources()) this.set({ type: shortType(typeUrl) }, size);
    },
  });
  new Gauge({
    name: 'culvert_manifest_problems',
    help: 'Manifests, or parts of them, that are not in force as written.',
    registers,
    collect() {
      this.set(sources.manifestProblems());
    },
  });
}
