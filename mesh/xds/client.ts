import {
  type Client,
  type ClientDuplexStream,
  connectivityState,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { messageOf } from '../common/errors.js';
import type { Log } from '../log/index.js';
import {
  ADDRESS_TYPE_URL,
  AggregatedDiscoveryService,
  AUTHORIZATION_TYPE_URL,
  envoy,
} from '../proto/index.js';
import type { StoreUpdate } from '../store/types.js';
import { callMetadata, connectController } from './channel.js';
import { XdsError } from './errors.js';
import { nodeOf } from './node.js';
import { Subscription } from './subscription.js';
import { TrustBundleSubscription } from './trust-bundle.js';
import type { ControllerOptions, NodeOptions, TerminationReason, XdsState } from './types.js';

export interface XdsClientOptions {
  readonly controller: ControllerOptions;
  readonly node: NodeOptions;
  /** TCP and TLS to the controller must be up within this; where they were not, the next time within twice that, up to `MAX_CONNECT_TIMEOUT_MS`. @default 5000 */
  readonly connectTimeoutMs?: number;
  /** A controller answers the first request of each type, if only by nothing: one that has said nothing on a stream for so long is asked on another. @default 300000 */
  readonly answerTimeoutMs?: number;
  /** First delay before connecting again; doubles up to `maxBackoffMs`, each shortened at random by up to half. @default 10 */
  readonly minBackoffMs?: number;
  /** @default 15000 */
  readonly maxBackoffMs?: number;
}

export interface XdsClientDeps {
  readonly log: Log;
  /** A change is to be put in force now, synchronously; it is acknowledged when this returns. */
  readonly onUpdate: (update: StoreUpdate) => void;
  /** The controller has come (back). */
  readonly onConnected?: () => void;
  /** The mesh's roots (DER) as the controller pushes them; absent: they are not asked for. A controller may have none to tell. */
  readonly onTrustBundle?: (roots: readonly Buffer[]) => void;
}

type Request = envoy.service.discovery.v3.DeltaDiscoveryRequest.$Properties;
type Response = ReturnType<typeof DeltaDiscoveryResponse.decode>;
type Stream = ClientDuplexStream<Request, Buffer>;
const DeltaDiscoveryResponse = envoy.service.discovery.v3.DeltaDiscoveryResponse;

/** A stream that lived this long was no failure: the next connect follows at once. */
const HEALTHY_STREAM_MS = 1_000;
const DEFAULT_CONNECT_TIMEOUT_MS = 5_000;
/** Beyond what a thousand agents that come at once must wait (docs/performance.md): less would send them to the end of the row. */
const DEFAULT_ANSWER_TIMEOUT_MS = 300_000;
/** Where all agents come at once, a busy controller takes longer than agents wait: were they not to wait longer the next time, it would work for those only who have left. */
const MAX_CONNECT_TIMEOUT_MS = 40_000;
/** Longest text of a NACK. */
const MAX_NACK_CHARS = 64 * 1024;

/**
 * Delta ADS client (sheet 3): keeps one stream to the controller, turns its pushes into store updates and goes on with what it
 * has while the controller is away. Sound resources of a push are put in force even if others of it are rejected.
 */
export class XdsClient {
  readonly #options: XdsClientOptions;
  readonly #deps: XdsClientDeps;
  /** Policies first: workloads name them, and one that is not known denies. */
  readonly #subscriptions = [new Subscription(AUTHORIZATION_TYPE_URL), new Subscription(ADDRESS_TYPE_URL)];
  readonly #trustBundle: TrustBundleSubscription | null;
  readonly #terminations: Record<TerminationReason, number> = {
    ConnectionError: 0,
    Error: 0,
    Reconnect: 0,
    Complete: 0,
  };
  #isRunning = false;
  #client: Client | null = null;
  #stream: Stream | null = null;
  #timer: NodeJS.Timeout | null = null;
  #connectedAtMs: number | null = null;
  /** On this stream. */
  #wasAnswered = false;
  #backoffMs: number;
  #connectTimeoutMs: number;
  #lastError: string | null = null;

  constructor(options: XdsClientOptions, deps: XdsClientDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#trustBundle = deps.onTrustBundle === undefined ? null : new TrustBundleSubscription();
    this.#backoffMs = options.minBackoffMs ?? 10;
    this.#connectTimeoutMs = options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
  }

  start(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#connect();
  }

  stop(): void {
    this.#isRunning = false;
    this.#drop();
  }

  get state(): XdsState {
    const pending = this.#subscriptions.flatMap((subscription) => this.#pendingOf(subscription));
    return {
      controller: this.#options.controller.address,
      isConnected: this.#connectedAtMs !== null,
      isReady: pending.length === 0,
      pending,
      lastError: this.#lastError,
      terminations: { ...this.#terminations },
      types: this.#allSubscriptions().map((subscription) => subscription.state),
    };
  }

  #pendingOf(subscription: Subscription): string[] {
    if (subscription.wasAccepted) return [];
    const { typeUrl, messages, rejected } = subscription.state;
    if (messages === 0) return [`xds: waiting for ${typeUrl} (${this.#lastError ?? 'no error so far'})`];
    const [first] = rejected;
    return [
      `xds: ${rejected.size} resources of ${typeUrl} were rejected${first ? `, first ${first.join(': ')}` : ''}`,
    ];
  }

  #connect(): void {
    const { controller, node } = this.#options;
    const connectTimeoutMs = this.#connectTimeoutMs;
    const { path, requestSerialize, responseDeserialize } =
      AggregatedDiscoveryService.deltaAggregatedResources;
    try {
      this.#client = connectController(controller);
      const metadata = callMetadata(controller);
      this.#stream = this.#client.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        metadata,
      );
    } catch (error) {
      this.#ended('ConnectionError', messageOf(error));
      return;
    }
    this.#listen(this.#client, this.#stream);
    this.#timer = setTimeout(() => this.#checkConnected(connectTimeoutMs), connectTimeoutMs);
    for (const subscription of this.#allSubscriptions()) {
      this.#stream.write({
        node: nodeOf(node),
        typeUrl: subscription.typeUrl,
        initialResourceVersions: subscription.initialVersions(),
      });
    }
  }

  /** Events of a stream that has been given up are ignored. */
  #listen(client: Client, stream: Stream): void {
    const isCurrent = () => this.#stream === stream;
    stream.on('metadata', () => {
      if (isCurrent()) this.#connected();
    });
    stream.on('data', (bytes: Buffer) => {
      if (isCurrent()) this.#receive(stream, bytes);
    });
    stream.on('error', () => {}); // `status` follows and tells the same
    stream.on('status', (end: StatusObject) => {
      if (!isCurrent()) return;
      const wasUp = this.#connectedAtMs !== null || isReady(client);
      this.#ended(terminationOf(end.code, wasUp), `${status[end.code]}: ${end.details}`);
    });
  }

  #connected(): void {
    if (this.#connectedAtMs !== null) return;
    this.#connectedAtMs = performance.now();
    this.#connectTimeoutMs = this.#options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
    this.#deps.log.info({ controller: this.#options.controller.address }, 'connected to the controller');
    this.#deps.onConnected?.();
  }

  /** A controller with nothing to say sends no metadata: the transport decides. */
  #checkConnected(connectTimeoutMs: number): void {
    this.#timer = null;
    if (this.#client !== null && isReady(this.#client)) {
      this.#connected();
      const { answerTimeoutMs = DEFAULT_ANSWER_TIMEOUT_MS } = this.#options;
      this.#timer = setTimeout(() => this.#checkAnswered(answerTimeoutMs), answerTimeoutMs);
    } else {
      this.#connectTimeoutMs = Math.max(
        connectTimeoutMs,
        Math.min(MAX_CONNECT_TIMEOUT_MS, connectTimeoutMs * 2),
      );
      this.#ended('ConnectionError', `no connection within ${connectTimeoutMs} ms`);
    }
  }

  /** Without this an agent whose stream was lost without a sign would keep what it has for ever, as pings are answered below it. */
  #checkAnswered(answerTimeoutMs: number): void {
    this.#timer = null;
    if (!this.#wasAnswered) this.#ended('Error', `no answer within ${answerTimeoutMs} ms`);
  }

  #receive(stream: Stream, bytes: Buffer): void {
    this.#connected();
    this.#wasAnswered = true;
    try {
      const response = DeltaDiscoveryResponse.decode(bytes);
      const problems = this.#put(response, bytes.length);
      this.#acknowledge(stream, response.typeUrl, response.nonce, problems);
    } catch (error) {
      // Not acknowledged: with the versions it knows we hold, the controller will send it again.
      this.#ended('Error', messageOf(error));
    }
  }

  /** In force when this returns; gives what is rejected. */
  #put(response: Response, bytes: number): readonly string[] {
    if (this.#trustBundle?.typeUrl === response.typeUrl) {
      const push = this.#trustBundle.read(response);
      if (push.roots !== null) this.#deps.onTrustBundle?.(push.roots);
      this.#trustBundle.commit(response, push, bytes);
      return push.problems;
    }
    const subscription = this.#subscriptions.find(({ typeUrl }) => typeUrl === response.typeUrl);
    if (subscription === undefined) throw new XdsError('XDS_PROTOCOL', `push of type ${response.typeUrl}`);
    const push = subscription.read(response);
    this.#deps.onUpdate(push.update);
    subscription.commit(response, push, bytes);
    return push.problems;
  }

  #allSubscriptions() {
    return this.#trustBundle === null ? this.#subscriptions : [...this.#subscriptions, this.#trustBundle];
  }

  #acknowledge(stream: Stream, typeUrl: string, responseNonce: string, problems: readonly string[]): void {
    if (problems.length === 0) {
      stream.write({ typeUrl, responseNonce });
      return;
    }
    this.#deps.log.warn({ typeUrl, problems: problems.slice(0, 20) }, 'rejected resources of the controller');
    const message = joinProblems(problems);
    stream.write({ typeUrl, responseNonce, errorDetail: { code: status.INVALID_ARGUMENT, message } });
  }

  /** The stream is over: give it up, connect again after a while. */
  #ended(reason: TerminationReason, message: string): void {
    const livedMs = this.#connectedAtMs === null ? 0 : performance.now() - this.#connectedAtMs;
    this.#drop();
    if (!this.#isRunning) return;
    const { minBackoffMs = 10, maxBackoffMs = 15_000, controller } = this.#options;
    if (livedMs >= HEALTHY_STREAM_MS) this.#backoffMs = minBackoffMs;
    const delayMs = this.#backoffMs * (0.5 + Math.random() / 2);
    this.#backoffMs = Math.min(maxBackoffMs, this.#backoffMs * 2);
    this.#terminations[reason]++;
    // One line per failure would be hundreds while a controller restarts.
    const level = message === this.#lastError ? 'debug' : 'warn';
    this.#lastError = message;
    this.#deps.log[level]({ controller: controller.address, reason, message }, 'no stream to the controller');
    this.#timer = setTimeout(() => this.#connect(), delayMs);
  }

  #drop(): void {
    const stream = this.#stream;
    this.#stream = null;
    this.#connectedAtMs = null;
    this.#wasAnswered = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    stream?.cancel();
    this.#client?.close();
    this.#client = null;
  }
}

function isReady(client: Client): boolean {
  return client.getChannel().getConnectivityState(false) === connectivityState.READY;
}

/** Which ends are the ordinary course of things (sheet 3.2). */
function terminationOf(code: status, wasConnected: boolean): TerminationReason {
  if (code === status.OK) return 'Complete';
  if (!wasConnected) return 'ConnectionError';
  const isOrdinary = [
    status.UNKNOWN,
    status.CANCELLED,
    status.DEADLINE_EXCEEDED,
    status.UNAVAILABLE,
  ].includes(code);
  return isOrdinary ? 'Reconnect' : 'Error';
}

function joinProblems(problems: readonly string[]): string {
  const whole = problems.join('\n');
  if (whole.length <= MAX_NACK_CHARS) return whole;
  return `${whole.slice(0, MAX_NACK_CHARS)}... (${problems.length} resources rejected)`;
}
