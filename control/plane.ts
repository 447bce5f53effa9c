import type { Log } from '../mesh/log/index.js';
import type { SourceBatch } from '../mesh/manifests/index.js';
import { ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, PROXY_CONFIG_TYPE_URL } from '../mesh/proto/index.js';
import { TOKEN_REVIEW_DEFAULTS, TokenReviewAuthenticator } from './authn/index.js';
import {
  type Authenticator,
  type Authority,
  CertificateService,
  Issuer,
  TokenAuthority,
} from './ca/index.js';
import type { Cluster } from './cluster.js';
import { IDLE_POLICIES_DEFAULTS, IdlePolicies } from './idle-policies.js';
import type { ControllerMetrics, MetricSources } from './metrics.js';
import { type MeshObject, MODEL_DEFAULTS, Model } from './model/index.js';
import type { StatusSections } from './monitoring.js';
import type { ControllerOptions } from './options.js';
import { PUBLISHER_DEFAULTS, Publisher } from './publisher.js';
import { Reports } from './reports.js';
import { type ObjectSource, openSource } from './source.js';
import { AddressTranslator } from './translate/index.js';
import { loadVipState, STATUS_VIP_STATE } from './vip-state.js';
import { Writeback } from './writeback/index.js';
import { XDS_DEFAULTS, XdsServer } from './xds/index.js';

/** What the controller does, without its listeners: source → model → translate → xDS, and the CA beside it. */
export interface Plane {
  readonly source: ObjectSource;
  readonly model: Model;
  readonly publisher: Publisher;
  readonly xds: XdsServer;
  readonly reports: Reports;
  readonly idlePolicies: IdlePolicies;
  readonly certificates: CertificateService;
  /** Null: source `files`. */
  readonly writeback: Writeback | null;
  /** Looks who may not be connected any more. */
  readonly recheck: NodeJS.Timeout;
}

interface PlaneDeps {
  readonly authority: Authority;
  /** Null: source `files`. */
  readonly cluster: Cluster | null;
  readonly metrics: ControllerMetrics;
  readonly log: Log;
}

/** On Kubernetes: with 1,000 agents each push is 1,000 messages, whatever is in it. From folders everything goes at once. */
const PUSH_INTERVAL_MS = 300;
/** A stream outlives its pod or node by this and what the watch takes, less than 5 s together. */
const RECHECK_MS = 2000;

/** Nothing of it is at work before `source.start()`. Throws where the state folder cannot be used. */
export function buildPlane(options: ControllerOptions, deps: PlaneDeps): Plane {
  const { authority, cluster, metrics, log } = deps;
  const reports: Reports = new Reports({
    log: log.child({ room: 'reports' }),
    onChange: (keys) => writeback?.onReports(keys),
  });
  const model: Model = new Model(
    { ...MODEL_DEFAULTS, ...options, intervalMs: cluster === null ? 0 : PUSH_INTERVAL_MS },
    { onChange: (change) => publisher.publish(change) },
  );
  const authenticator = createAuthenticator(options, deps);
  const issuer = createIssuer(options, authority, model);
  const typeUrls = [PROXY_CONFIG_TYPE_URL, AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL];
  const xds = new XdsServer(
    { ...XDS_DEFAULTS, typeUrls },
    {
      authenticator,
      authorize: (caller) => issuer.checkAgent(caller),
      events: metrics.xds,
      log: log.child({ room: 'xds' }),
    },
  );
  const vips = cluster === null ? loadVipState(options.state, log) : STATUS_VIP_STATE;
  const captureSign = cluster !== null ? 'annotation' : 'label';
  const addresses = new AddressTranslator({ ...options, captureSign }, { model, vips: vips.vips });
  const publisher = new Publisher(
    { ...PUBLISHER_DEFAULTS, ...options },
    { model, addresses, vips, xds, reports },
  );
  const certificates = new CertificateService({
    authenticator,
    issuer,
    events: metrics.ca,
    log: log.child({ room: 'ca' }),
  });
  const idlePolicies = new IdlePolicies(IDLE_POLICIES_DEFAULTS, {
    model,
    onChange: (keys) => writeback?.onIdle(keys),
  });
  const writeback =
    cluster === null ? null : createWriteback(options, cluster, { model, reports, idlePolicies, log });
  const onBatch = (batch: SourceBatch<MeshObject>) => {
    model.apply(batch);
    writeback?.onBatch(batch);
  };
  const source = openSource(options, { onBatch, cluster, writeback, log });
  const recheck = setInterval(() => xds.recheck(), RECHECK_MS).unref();
  return { source, model, publisher, xds, reports, idlePolicies, certificates, writeback, recheck };
}

/** Its clients are told to come back, or to go elsewhere. */
export function stopPlane(plane: Plane): void {
  const { source, model, publisher, xds, idlePolicies, writeback, recheck } = plane;
  clearInterval(recheck);
  idlePolicies.stop();
  writeback?.stop();
  source.stop();
  model.stop();
  publisher.stop();
  xds.close();
}

function createWriteback(
  options: ControllerOptions,
  { client, election, identity }: Cluster,
  deps: Pick<Plane, 'model' | 'reports' | 'idlePolicies'> & { readonly log: Log },
): Writeback {
  const { model, reports, idlePolicies, log } = deps;
  return new Writeback(
    { namespace: options.namespace, identity, addsNodeTaints: options.nodeTaint },
    {
      client,
      leadership: election,
      model,
      limitationsOf: (key) => reports.of(key),
      isIdle: (key) => idlePolicies.has(key),
      log: log.child({ room: 'writeback' }),
    },
  );
}

/** On Kubernetes the API server knows its tokens; else they are our own. */
function createAuthenticator(options: ControllerOptions, deps: PlaneDeps): Authenticator {
  if (deps.cluster === null) return TokenAuthority.load(options.state);
  return new TokenReviewAuthenticator(TOKEN_REVIEW_DEFAULTS, {
    client: deps.cluster.client,
    events: deps.metrics.authn,
    log: deps.log.child({ room: 'authn' }),
  });
}

function createIssuer(options: ControllerOptions, authority: Authority, model: Model): Issuer {
  const { trustDomain, trustDomainAliases, certificateLifetime } = options;
  const nodeAccounts =
    options.nodeAccounts.length > 0 ? options.nodeAccounts : [`${options.namespace}/culvert-agent`];
  return new Issuer(
    {
      trustDomain,
      trustDomainAliases,
      nodeAccounts,
      defaultLifetimeMs: certificateLifetime,
      maxLifetimeMs: certificateLifetime,
    },
    { authority, pods: model, nowMs: Date.now },
  );
}

/** What is read when metrics are scraped. */
export function metricSourcesOf(
  { xds, source, reports, writeback }: Plane,
  deps: { readonly authority: Authority; readonly isReady: () => boolean },
): MetricSources {
  const { authority, isReady } = deps;
  return {
    isReady,
    writeback: () => writeback?.counts ?? null,
    clients: () => xds.clients,
    resources: () => xds.sizes,
    backlog: () => xds.backlog,
    manifestProblems: () => source.problems.length,
    reports: () => reports.all.length,
    sourceAges: () => source.ages,
    expiries: () => ({ ...authority.expiries, roots: authority.roots.length }),
  };
}

/** What `culvertctl status` shows. */
export function statusOf({ xds, source, reports, idlePolicies, writeback }: Plane): StatusSections {
  return {
    agents: () => xds.clients,
    resources: () => xds.sizes,
    problems: () => source.problems,
    notices: () => [...source.notices, ...idlePolicies.notices],
    watches: () => source.watches,
    reports: () => reports.all,
    findings: () => writeback?.findings ?? [],
  };
}
