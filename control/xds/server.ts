import { status } from '@grpc/grpc-js';
import { systemClock } from '../../mesh/common/clock.js';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { codeOfRefusal } from '../ca/index.js';
import type { Authenticator, Caller, Refusal } from '../ca/types.js';
import { OUTBOX_DEFAULTS, Outbox, type OutboxOptions } from './outbox.js';
import { ResourceSet } from './resource-set.js';
import { type StreamOptions, XdsStream } from './stream.js';
import type { ClientStatus, DeltaCall, ResourceContent, XdsBacklog, XdsEvents } from './types.js';

export interface XdsServerOptions extends StreamOptions {
  readonly outbox: OutboxOptions;
  /** What is served; other types end the stream. What names resources of another type comes after it: a client is sent it later. */
  readonly typeUrls: readonly string[];
}

export const XDS_DEFAULTS = {
  ackTimeoutMs: 60_000,
  maxNamesPerType: 100_000,
  outbox: OUTBOX_DEFAULTS,
} as const;

export interface XdsServerDeps {
  readonly authenticator: Authenticator;
  /** May this caller have configuration? Null: yes; else why not. */
  readonly authorize: (caller: Caller) => Refusal | null;
  readonly events: XdsEvents;
  readonly log: Log;
}

/** Delta xDS for all clients: `update` what is served, hand `handle` to the gRPC server. */
export class XdsServer {
  readonly #options: XdsServerOptions;
  readonly #deps: XdsServerDeps;
  readonly #sets: ReadonlyMap<string, ResourceSet>;
  readonly #streams: Set<XdsStream>;
  readonly #outbox: Outbox;
  #isClosing: boolean;

  constructor(options: XdsServerOptions, deps: XdsServerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#sets = new Map(options.typeUrls.map((typeUrl) => [typeUrl, new ResourceSet({ typeUrl })]));
    this.#streams = new Set();
    this.#outbox = new Outbox(options.outbox);
    this.#isClosing = false;
  }

  /** Sets and removes resources of one type in one step and pushes to whoever subscribes to them; after what has changed of type `after` so far. */
  update(
    typeUrl: string,
    updates: ReadonlyMap<string, ResourceContent | null>,
    after: string | null = null,
  ): void {
    const set = this.#sets.get(typeUrl);
    if (set === undefined) throw new TypeError(`${typeUrl} is not among the types served`);
    const { position } = set;
    if (set.update(updates) === 0) return;
    for (const stream of this.#streams) stream.changed(typeUrl, position, after);
  }

  /** Resources served, by type. */
  get sizes(): ReadonlyMap<string, number> {
    return new Map([...this.#sets].map(([typeUrl, { size }]) => [typeUrl, size]));
  }

  /** What is on its way to clients, and who waits. */
  get backlog(): XdsBacklog {
    const { bytes, waiting } = this.#outbox;
    return { bytes, waiting };
  }

  /** Who is connected, and what each has. */
  get clients(): readonly ClientStatus[] {
    return [...this.#streams].map((stream) => stream.status());
  }

  /** gRPC handler of `DeltaAggregatedResources`. */
  readonly handle = (call: DeltaCall): void => {
    this.#open(call).catch((error) => {
      this.#deps.log.error({ err: error }, 'xDS stream failed');
      call.emit('error', { code: status.INTERNAL, details: messageOf(error) });
    });
  };

  /** Asks again for everybody who is connected: who may have configuration no more is cut off. */
  recheck(): void {
    for (const stream of this.#streams) {
      const fault = this.#deps.authorize(stream.caller);
      if (fault === null) continue;
      this.#deps.events.refused(fault.refusal);
      stream.end(codeOfRefusal(fault.refusal), `${fault.refusal}: ${fault.message}`);
    }
  }

  /** Ends all streams cleanly; clients go elsewhere, or come back. */
  close(): void {
    this.#isClosing = true;
    for (const stream of this.#streams) stream.end();
    this.#outbox.close();
  }

  async #open(call: DeltaCall): Promise<void> {
    const caller = await this.#admit(call);
    if (caller === null || call.cancelled) return;
    if (this.#isClosing) {
      call.emit('error', { code: status.UNAVAILABLE, details: 'shutting down' });
      return;
    }
    const { events, log } = this.#deps;
    const deps = { outbox: this.#outbox, sets: this.#sets, caller, events, log };
    const stream = new XdsStream(call, this.#options, deps);
    this.#streams.add(stream);
    events.connected();
    const cancelExpiry = this.#endAtExpiry(stream, caller);
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      cancelExpiry();
      stream.closed();
      this.#streams.delete(stream);
      events.disconnected();
    };
    call.on('cancelled', over).on('close', over).on('error', over);
    call.on('end', () => stream.end());
    call.on('data', (request) => stream.receive(request));
  }

  async #admit(call: DeltaCall): Promise<Caller | null> {
    const outcome = await this.#deps.authenticator.authenticate(call.metadata);
    if ('refusal' in outcome) {
      this.#refuse(call, outcome);
      return null;
    }
    const fault = this.#deps.authorize(outcome.caller);
    if (fault !== null) {
      this.#refuse(call, fault);
      return null;
    }
    return outcome.caller;
  }

  #refuse(call: DeltaCall, { refusal, message }: Refusal): void {
    this.#deps.events.refused(refusal);
    this.#deps.log.warn({ peer: call.getPeer(), reason: refusal, details: message }, 'xDS stream refused');
    call.emit('error', { code: codeOfRefusal(refusal), details: `${refusal}: ${message}` });
  }

  /** A stream lives no longer than the token it was opened with. Wall clock and timers drift apart: looked at again until it is so. */
  #endAtExpiry(stream: XdsStream, caller: Caller): () => void {
    let cancel = (): void => {};
    const check = (): void => {
      const leftMs = caller.expiresAtMs - Date.now();
      if (leftMs <= 0) stream.end(status.UNAUTHENTICATED, 'token expired');
      else cancel = systemClock.setTimer(leftMs, check);
    };
    cancel = systemClock.setTimer(0, check);
    return () => cancel();
  }
}
