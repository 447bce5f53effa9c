import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Verdict } from './admission/index.js';
import type { AuthnEvents } from './authn/index.js';
import type { CaEvents } from './ca/index.js';
import type { WritebackCounts } from './writeback/index.js';
import type { ClientStatus, XdsBacklog, XdsEvents } from './xds/index.js';

/** What the controller's metrics read when they are scraped. */
export interface MetricSources {
  readonly isReady: () => boolean;
  readonly clients: () => readonly ClientStatus[];
  readonly resources: () => ReadonlyMap<string, number>;
  readonly backlog: () => XdsBacklog;
  readonly manifestProblems: () => number;
  readonly reports: () => number;
  /** By source: since it was last seen whole, milliseconds. */
  readonly sourceAges: () => ReadonlyMap<string, number>;
  /** Unix milliseconds: when the root that signs, and the way to it, end. */
  readonly expiries: () => { readonly rootMs: number; readonly chainMs: number; readonly roots: number };
  /** Null: source `files`. */
  readonly writeback: () => WritebackCounts | null;
}

/** The controller's metrics in one registry, and the event sinks that feed them. */
export interface ControllerMetrics {
  readonly registry: Registry;
  readonly xds: XdsEvents;
  readonly ca: CaEvents;
  readonly authn: AuthnEvents;
  readonly admission: AdmissionEvents;
  /** Once the sources exist. */
  observe(sources: MetricSources): void;
}

/** What the webhook tells. */
export interface AdmissionEvents {
  reviewed(verdict: Verdict): void;
}

/** Label `type`: the message's name without its package's URL. */
function shortType(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
}

export function createMetrics(): ControllerMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  // Gauges whose names say that they count.
  for (const kind of ['handles', 'requests', 'resources'])
    registry.removeSingleMetric(`nodejs_active_${kind}_total`);
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
    authn: authnEvents(registers),
    admission: admissionEvents(registers),
    observe: (sources) => observe(registers, sources),
  };
}

function admissionEvents(registers: Registry[]): AdmissionEvents {
  const reviews = new Counter({
    name: 'culvert_admission_reviews_total',
    help: 'Objects that the webhook was asked about.',
    labelNames: ['verdict'],
    registers,
  });
  return { reviewed: (verdict) => reviews.inc({ verdict }) };
}

type Refusals = Counter<'service' | 'reason'>;

const SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60];

function xdsEvents(registers: Registry[], refusals: Refusals): XdsEvents {
  const counter = (name: string, help: string) =>
    new Counter({ name, help, labelNames: ['type'], registers });
  const connected = new Gauge({ name: 'pilot_xds', help: 'Agents connected by xDS.', registers });
  const pushes = counter('culvert_xds_pushes_total', 'Responses sent.');
  const resources = counter('culvert_xds_pushed_resources_total', 'Resources sent or removed in responses.');
  const bytes = counter('culvert_xds_pushed_bytes_total', 'Bytes of responses.');
  const nacks = counter('culvert_xds_nacks_total', 'Responses that agents rejected in part (NACK).');
  const histogram = (name: string, help: string) =>
    new Histogram({ name, help, labelNames: ['type'], buckets: SECONDS, registers });
  const roundTrips = histogram('culvert_xds_ack_seconds', 'From a push to its ACK.');
  const convergence = histogram(
    'pilot_proxy_convergence_time',
    'From a change of what is served to the ACK of the push that carries it, seconds.',
  );
  return {
    connected: () => connected.inc(),
    disconnected: () => connected.dec(),
    pushed: (typeUrl, count, size) => {
      const type = shortType(typeUrl);
      pushes.inc({ type });
      resources.inc({ type }, count);
      bytes.inc({ type }, size);
    },
    acknowledged: (typeUrl, roundTripMs, convergenceMs) => {
      const type = shortType(typeUrl);
      roundTrips.observe({ type }, roundTripMs / 1000);
      convergence.observe({ type }, convergenceMs / 1000);
    },
    rejected: (typeUrl) => nacks.inc({ type: shortType(typeUrl) }),
    refused: (reason) => refusals.inc({ service: 'xds', reason }),
  };
}

function authnEvents(registers: Registry[]): AuthnEvents {
  const reviews = new Histogram({
    name: 'culvert_token_review_seconds',
    help: 'TokenReviews asked of the API server; what they refused: culvert_refusals_total.',
    labelNames: ['outcome'],
    buckets: SECONDS,
    registers,
  });
  return { reviewed: (outcome, tookMs) => reviews.observe({ outcome }, tookMs / 1000) };
}

function caEvents(registers: Registry[], refusals: Refusals): CaEvents {
  const counter = (name: string, help: string) => new Counter({ name, help, registers });
  const csrs = counter(
    'culvert_ca_requests_total',
    'Certificates asked for; why some were refused: culvert_refusals_total.',
  );
  const issued = counter('culvert_ca_certificates_issued_total', 'Certificates issued.');
  const failures = counter('culvert_ca_failures_total', 'Requests that failed by an error of our own.');
  return {
    issued: () => {
      csrs.inc();
      issued.inc();
    },
    refused: (reason) => {
      csrs.inc();
      refusals.inc({ service: 'ca', reason });
    },
    failed: () => {
      csrs.inc();
      failures.inc();
    },
  };
}

function observe(registers: Registry[], sources: MetricSources): void {
  gauge(registers, 'culvert_controller_ready', 'Whether readiness says ready.', () =>
    sources.isReady() ? 1 : 0,
  );
  new Gauge({
    name: 'culvert_xds_subscriptions',
    help: 'Types that agents are subscribed to, by how their last push ended: synced, sent (no answer yet), refused.',
    labelNames: ['type', 'state'],
    registers,
    collect() {
      this.reset();
      for (const { types } of sources.clients())
        for (const { typeUrl, state } of types) this.inc({ type: shortType(typeUrl), state });
    },
  });
  new Gauge({
    name: 'culvert_xds_resources',
    help: 'Resources served.',
    labelNames: ['type'],
    registers,
    collect() {
      for (const [typeUrl, size] of sources.resources()) this.set({ type: shortType(typeUrl) }, size);
    },
  });
  gauge(
    registers,
    'culvert_xds_under_way_bytes',
    'Responses that connections have not taken yet.',
    () => sources.backlog().bytes,
  );
  gauge(
    registers,
    'culvert_xds_waiting_streams',
    'Streams that wait until there is less under way.',
    () => sources.backlog().waiting,
  );
  new Gauge({
    name: 'culvert_source_age_seconds',
    help: 'Since a source of configuration was last seen whole.',
    labelNames: ['source'],
    registers,
    collect() {
      for (const [source, ageMs] of sources.sourceAges()) this.set({ source }, ageMs / 1000);
    },
  });
  gauge(
    registers,
    'citadel_server_root_cert_expiry_timestamp',
    'Unix time at which the signing root ends.',
    () => sources.expiries().rootMs / 1000,
  );
  gauge(
    registers,
    'citadel_server_cert_chain_expiry_timestamp',
    'Unix time at which the first certificate of the signing chain ends.',
    () => sources.expiries().chainMs / 1000,
  );
  gauge(
    registers,
    'culvert_ca_roots',
    'Roots in the trust bundle: more than one while one follows another.',
    () => sources.expiries().roots,
  );
  gauge(
    registers,
    'culvert_manifest_problems',
    'Manifests, or parts of them, that are not in force as written.',
    sources.manifestProblems,
  );
  gauge(
    registers,
    'culvert_reports',
    'Parts of objects in force that are not in force as written.',
    sources.reports,
  );
  observeWriteback(registers, () => sources.writeback() ?? NOTHING_WRITTEN);
}

const NOTHING_WRITTEN: WritebackCounts = {
  isLeader: false,
  written: 0,
  failed: 0,
  waiting: 0,
  eventsSent: 0,
  eventsDropped: 0,
  findings: new Map(),
};

function observeWriteback(registers: Registry[], read: () => WritebackCounts): void {
  gauge(registers, 'culvert_leader', '1: this replica is the one that writes to the cluster.', () =>
    read().isLeader ? 1 : 0,
  );
  counter(
    registers,
    'culvert_status_writes_total',
    'Statuses and node taints written.',
    () => read().written,
  );
  counter(
    registers,
    'culvert_status_write_failures_total',
    'Tries to write a status or node taint that failed; they are tried again.',
    () => read().failed,
  );
  gauge(
    registers,
    'culvert_status_writes_waiting',
    'Objects whose status or taint is still to be written, or looked at.',
    () => read().waiting,
  );
  counter(registers, 'culvert_events_total', 'Kubernetes Events told.', () => read().eventsSent);
  counter(
    registers,
    'culvert_events_dropped_total',
    'Kubernetes Events beyond their rate, or that the API server refused.',
    () => read().eventsDropped,
  );
  new Gauge({
    name: 'culvert_findings',
    help: 'What people should look at: PodsHeld (nodes), NotCaptured and ExclusionUsed (pods), BlocksMesh (NetworkPolicies).',
    labelNames: ['reason'],
    registers,
    collect() {
      this.reset();
      for (const reason of FINDINGS) this.set({ reason }, read().findings.get(reason) ?? 0);
    },
  });
}

const FINDINGS = ['PodsHeld', 'NotCaptured', 'ExclusionUsed', 'BlocksMesh'];

function counter(registers: Registry[], name: string, help: string, read: () => number): void {
  new Counter({
    name,
    help,
    registers,
    collect() {
      this.reset();
      this.inc(read());
    },
  });
}

function gauge(registers: Registry[], name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers,
    collect() {
      this.set(read());
    },
  });
}
