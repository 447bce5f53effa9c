import { status } from '@grpc/grpc-js';
import type { Log } from '../../mesh/log/index.js';
import type { Caller } from '../ca/types.js';
import { checkNode } from './node.js';
import type { Outbox, Parcel, Sender } from './outbox.js';
import type { ResourceSet } from './resource-set.js';
import { Subscription } from './subscription.js';
import type { ClientStatus, DeltaCall, DeltaRequest, Push, XdsEvents } from './types.js';

export interface StreamOptions {
  /** A push not answered within this ends the stream; the client comes back with what it has. */
  readonly ackTimeoutMs: number;
  readonly maxNamesPerType: number;
}

export interface StreamDeps {
  /** Shared by all streams. */
  readonly outbox: Outbox;
  readonly sets: ReadonlyMap<string, ResourceSet>;
  readonly caller: Caller;
  readonly events: XdsEvents;
  readonly log: Log;
}

interface TypeState {
  readonly set: ResourceSet;
  readonly subscription: Subscription;
  /** The push that is waiting for its ACK or NACK; at most one. */
  outstanding: {
    readonly nonce: string;
    readonly sentMs: number;
    /** Of the first change that it carries. */
    readonly changedMs: number;
    readonly timer: NodeJS.Timeout;
  } | null;
  /** The first change that no push carries yet. */
  changedMs: number | null;
  /** Changes from this position on are sent after those of another type; null: none waits. */
  waits: { readonly position: number; readonly type: string } | null;
  nacks: number;
  /** Of the last push, if it was refused. */
  lastNack: string | null;
}

function hasUnsent({ outstanding, subscription, waits }: TypeState): boolean {
  return outstanding !== null && subscription.isBehind(waits?.position);
}

/** NACK reasons and node ids are the client's text: cut before they are logged. */
const MAX_LOGGED_CHARS = 4096;

/** One client's delta stream: requests in, one outstanding push per type out. */
export class XdsStream implements Sender {
  readonly #call: DeltaCall;
  readonly #options: StreamOptions;
  readonly #deps: StreamDeps;
  readonly #types: Map<string, TypeState>;
  #nodeId: string | null;
  /** Not taken by the connection yet. */
  readonly #parcels = new Set<Parcel>();
  #isOpen: boolean;
  readonly #openedMs = performance.now();

  constructor(call: DeltaCall, options: StreamOptions, deps: StreamDeps) {
    this.#call = call;
    this.#options = options;
    this.#deps = deps;
    this.#types = new Map();
    this.#nodeId = null;
    this.#isOpen = true;
  }

  get caller(): Caller {
    return this.#deps.caller;
  }

  /** Something of this type has changed, from this position on. It is sent after what has changed of type `after`. */
  changed(typeUrl: string, position: number, after: string | null = null): void {
    const type = this.#types.get(typeUrl);
    if (type === undefined) return;
    type.changedMs ??= performance.now();
    if (after !== null) type.waits ??= { position, type: after };
    this.#deps.outbox.schedule(this);
  }

  /** Sends whatever is due and may be sent: types in their order, and again what waited for another one. */
  flush(): void {
    for (const typeUrl of this.#deps.sets.keys()) this.#push(typeUrl);
    for (const [typeUrl, { waits }] of this.#types) if (waits !== null) this.#push(typeUrl);
  }

  tooSlow(): void {
    this.end(status.UNAVAILABLE, 'too slow; reconnect');
  }

  /** Sends what has changed of this type, if the client wants it and owes no answer. */
  #push(typeUrl: string): void {
    const type = this.#types.get(typeUrl);
    if (type === undefined || type.outstanding !== null || !this.#isOpen) return;
    for (const one of this.#deps.sets.keys()) {
      if (one === typeUrl) break;
      const preceding = this.#types.get(one);
      if (preceding !== undefined && hasUnsent(preceding)) return; // until its ACK lets it be sent
    }
    if (type.waits !== null && this.#types.get(type.waits.type)?.subscription.isBehind() !== true)
      type.waits = null;
    const push = type.subscription.next(type.waits?.position);
    const changedMs = type.changedMs ?? performance.now();
    if (type.waits === null) type.changedMs = null;
    if (push === 'lost') this.end(status.UNAVAILABLE, 'too far behind; reconnect');
    else if (push !== null) this.#send(typeUrl, type, push, changedMs);
  }

  #send(typeUrl: string, type: TypeState, push: Push, changedMs: number): void {
    const { nonce, bytes } = type.set.encode(push);
    const timer = setTimeout(() => this.#unanswered(typeUrl), this.#options.ackTimeoutMs);
    type.outstanding = { nonce, sentMs: performance.now(), changedMs, timer };
    const parcel = this.#deps.outbox.sent(this, bytes.length);
    this.#parcels.add(parcel);
    this.#call.write(bytes, () => {
      this.#parcels.delete(parcel);
      parcel.done();
    });
    this.#deps.events.pushed(typeUrl, push.resources.length + push.removed.length, bytes.length);
  }

  /** What the client has, for people. */
  status(): ClientStatus {
    return {
      node: this.#deps.caller.nodeName,
      id: this.#nodeId,
      connectedMs: performance.now() - this.#openedMs,
      types: [...this.#types].map(([typeUrl, type]) => ({
        typeUrl,
        state: type.outstanding !== null ? 'sent' : type.lastNack !== null ? 'refused' : 'synced',
        nacks: type.nacks,
        lastNack: type.lastNack,
      })),
    };
  }

  receive(request: DeltaRequest): void {
    if (!this.#isOpen) return;
    const typeUrl = request.typeUrl ?? '';
    const type = this.#types.get(typeUrl);
    if (type === undefined) {
      if (!this.#begin(typeUrl, request)) return;
    } else {
      this.#settle(typeUrl, type, request);
      type.subscription.change(request);
    }
    if (this.#types.get(typeUrl)!.subscription.isExcessive)
      this.end(status.RESOURCE_EXHAUSTED, `more than ${this.#options.maxNamesPerType} names subscribed`);
    else this.#deps.outbox.schedule(this);
  }

  /** Ends the stream with a status other than OK, or (no code) cleanly. Idempotent. */
  end(code?: status, details = ''): void {
    if (!this.#isOpen) return;
    this.closed();
    if (code === undefined) {
      this.#call.end();
      return;
    }
    this.#deps.log.info({ node: this.#nodeId, code: status[code], details }, 'xDS stream ended');
    this.#call.emit('error', { code, details });
  }

  /** The call is over; releases everything. */
  closed(): void {
    this.#isOpen = false;
    this.#deps.outbox.forget(this);
    for (const parcel of this.#parcels) parcel.done();
    for (const type of this.#types.values()) {
      if (type.outstanding !== null) clearTimeout(type.outstanding.timer);
      type.subscription.close();
    }
    this.#types.clear();
  }

  /** First request of a type on this stream. False: refused, the stream has ended. */
  #begin(typeUrl: string, request: DeltaRequest): boolean {
    if (this.#nodeId === null) {
      const fault = checkNode(request.node, this.#deps.caller);
      if (fault !== null) {
        this.#deps.events.refused(fault.reason);
        this.end(
          fault.reason === 'node-missing' ? status.INVALID_ARGUMENT : status.PERMISSION_DENIED,
          fault.message,
        );
        return false;
      }
      this.#nodeId = (request.node?.id ?? '').slice(0, MAX_LOGGED_CHARS);
    }
    const set = this.#deps.sets.get(typeUrl);
    if (set === undefined) {
      this.end(status.INVALID_ARGUMENT, `type ${typeUrl.slice(0, 200)} is not served here`);
      return false;
    }
    const subscription = new Subscription(set, request, { maxNames: this.#options.maxNamesPerType });
    this.#types.set(typeUrl, {
      set,
      subscription,
      outstanding: null,
      changedMs: null,
      waits: null,
      nacks: 0,
      lastNack: null,
    });
    this.#deps.log.debug({ node: this.#nodeId, typeUrl }, 'xDS subscription');
    return true;
  }

  /** ACK or NACK of the outstanding push; answers to older ones say nothing. */
  #settle(typeUrl: string, type: TypeState, request: DeltaRequest): void {
    if (type.outstanding === null || request.responseNonce !== type.outstanding.nonce) return;
    clearTimeout(type.outstanding.timer);
    const roundTripMs = performance.now() - type.outstanding.sentMs;
    const { changedMs } = type.outstanding;
    type.outstanding = null;
    if (request.errorDetail == null) {
      type.lastNack = null;
      this.#deps.events.acknowledged(typeUrl, roundTripMs, performance.now() - changedMs);
      return;
    }
    this.#deps.events.rejected(typeUrl);
    const reason = (request.errorDetail.message ?? '').slice(0, MAX_LOGGED_CHARS);
    type.nacks++;
    type.lastNack = reason;
    this.#deps.log.warn(
      { node: this.#nodeId, typeUrl, nonce: request.responseNonce, reason },
      'client rejected resources; it keeps their last good versions',
    );
  }

  #unanswered(typeUrl: string): void {
    this.end(
      status.DEADLINE_EXCEEDED,
      `no answer to a push of ${typeUrl} within ${this.#options.ackTimeoutMs} ms`,
    );
  }
}
