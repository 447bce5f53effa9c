import { type ApiClient, statusOf } from '../../mesh/kube/index.js';
import {
  applyStatus,
  type EventRecorder,
  type Leadership,
  WRITE_QUEUE_DEFAULTS,
  WriteQueue,
} from '../../mesh/kube-write/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { Model, ObjectKey } from '../model/index.js';
import {
  conditionOf,
  conditionTypeOf,
  isSameCondition,
  type Judgement,
  type Verdict,
  verdictOf,
} from './conditions.js';
import { type Facts, STATUS_KINDS } from './facts.js';
import type { Condition, ObjectFacts, StatusAddress } from './types.js';
import type { VipAllocator } from './vip-allocator.js';

export interface StatusWriterDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly leadership: Pick<Leadership, 'isLeader'>;
  readonly facts: Facts;
  readonly model: Pick<Model, 'isSettled' | 'serviceEntry'>;
  readonly vips: VipAllocator;
  readonly judge: (key: ObjectKey) => Judgement;
  readonly events: Pick<EventRecorder, 'record'>;
  readonly log: Log;
}

interface Desired {
  readonly verdict: Verdict;
  readonly condition: Condition;
  readonly addresses: readonly StatusAddress[] | null;
}

/** What was seen goes through the source's batch and the model's debounce before it is judged. */
const SETTLE_MS = 100;

/**
 * Writes the statuses of the mesh's kinds. Level-triggered: what is to be written is worked out anew from what is known when its turn comes, and written only if
 * the API server has something else.
 */
export class StatusWriter {
  readonly #deps: StatusWriterDeps;
  readonly #queue: WriteQueue;
  /** Perhaps still on their way to the model. */
  readonly #touched: Set<ObjectKey>;
  /** In the model, and to be judged with the change that it hands on next. */
  readonly #unjudged: Set<ObjectKey>;
  /** Kinds whose CRD takes conditions for one value: others' must be written along. */
  readonly #atomicKinds: Set<string>;
  /** Kinds whose CRD drops observedGeneration. */
  readonly #withoutGenerations: Set<string>;
  #settling: NodeJS.Timeout | null;
  #isOn: boolean;

  constructor(deps: StatusWriterDeps) {
    this.#deps = deps;
    this.#queue = new WriteQueue(WRITE_QUEUE_DEFAULTS, { write: (key) => this.#write(key), log: deps.log });
    this.#touched = new Set();
    this.#unjudged = new Set();
    this.#atomicKinds = new Set();
    this.#withoutGenerations = new Set();
    this.#settling = null;
    this.#isOn = false;
  }

  get counts(): { readonly written: number; readonly failed: number; readonly waiting: number } {
    return { ...this.#queue.counts, waiting: this.#queue.size + this.#touched.size + this.#unjudged.size };
  }

  /** Begins a term: everything is looked at. */
  start(): void {
    this.#isOn = true;
    this.#deps.vips.reset();
    for (const key of this.#deps.facts.keys) this.touch(key);
  }

  stop(): void {
    this.#isOn = false;
    if (this.#settling !== null) clearTimeout(this.#settling);
    this.#settling = null;
    this.#touched.clear();
    this.#unjudged.clear();
    this.#queue.clear();
  }

  /** Something about the object has changed, or it is gone. */
  touch(key: ObjectKey): void {
    if (!this.#isOn || !STATUS_KINDS.has(key.slice(0, key.indexOf('/')))) return;
    this.#touched.add(key);
    this.#settling ??= setTimeout(() => this.#settle(), SETTLE_MS);
  }

  /** A change of the model has been translated. */
  judged(): void {
    for (const key of this.#unjudged) this.#queue.add(key);
    this.#unjudged.clear();
  }

  /** Where pods come and go all the time, the model always has changes that it has not handed on. */
  #settle(): void {
    this.#settling = null;
    for (const key of this.#touched) this.#unjudged.add(key);
    this.#touched.clear();
    if (this.#deps.model.isSettled) this.judged();
  }

  async #write(key: ObjectKey): Promise<boolean> {
    const { facts, vips, client, leadership, log } = this.#deps;
    const known = facts.get(key);
    if (known === undefined) vips.forget(key);
    if (known === undefined || !leadership.isLeader) return false;
    // Another change came while this one waited for its turn.
    if (this.#touched.has(key) || this.#unjudged.has(key)) return false;
    const desired = this.#desiredOf(key, known);
    if (this.#isWritten(known, desired)) return false;
    const status = this.#statusOf(known, desired);
    // An address must not be taken for another's: not over a status that we have not seen.
    const guard = desired.addresses === null ? {} : { resourceVersion: known.resourceVersion };
    try {
      let answer = await applyStatus(client, { object: known.object, status, ...guard });
      if (this.#losesOthers(known, facts.read(key, answer))) {
        this.#atomicKinds.add(known.object.kind);
        answer = await applyStatus(client, { object: known.object, status: this.#statusOf(known, desired) });
      }
      facts.answered(key, answer);
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
      // Gone, as the watch will tell; or its CRD has no status.
      log.info({ object: key }, 'nothing there whose status could be written');
      return false;
    }
    this.#checkGenerations(known, desired, facts.get(key));
    this.#tell(known, desired.verdict);
    return true;
  }

  #desiredOf(key: ObjectKey, { object, conditions, addresses, generation }: ObjectFacts): Desired {
    const { judge, model, vips } = this.#deps;
    const type = conditionTypeOf(object.kind);
    const verdict = verdictOf(object.kind, judge(key));
    const before = conditions.find((one) => one.type === type);
    const condition = conditionOf(type, verdict, generation, before, Date.now());
    if (object.kind !== 'ServiceEntry') return { verdict, condition, addresses: null };
    const entry = model.serviceEntry(key);
    // Of one that is invalid, what it has stays: clients may know it.
    const given = entry === undefined ? addresses : vips.addressesOf(key, entry);
    if (given === null) this.#deps.log.error({ object: key }, 'all automatic addresses are in use');
    return { verdict, condition, addresses: given ?? addresses };
  }

  #isWritten({ object, conditions, addresses }: ObjectFacts, desired: Desired): boolean {
    const before = conditions.find(({ type }) => type === desired.condition.type);
    const hasGenerations = !this.#withoutGenerations.has(object.kind);
    if (!isSameCondition(before, desired.condition, { hasGenerations })) return false;
    return desired.addresses === null || isSameList(addresses, desired.addresses);
  }

  #statusOf({ object, conditions }: ObjectFacts, { condition, addresses }: Desired): Record<string, unknown> {
    const others = this.#atomicKinds.has(object.kind)
      ? conditions.filter(({ type }) => type !== condition.type).map(writable)
      : [];
    return {
      conditions: [...others, writable(condition)],
      ...(addresses === null || addresses.length === 0 ? {} : { addresses }),
    };
  }

  /** Whether conditions of others were taken away by ours. */
  #losesOthers({ object, conditions }: ObjectFacts, after: ObjectFacts): boolean {
    if (this.#atomicKinds.has(object.kind)) return false;
    return conditions.some(({ type }) => after.conditions.every((one) => one.type !== type));
  }

  #checkGenerations({ object }: ObjectFacts, { condition }: Desired, after: ObjectFacts | undefined): void {
    const mine = after?.conditions.find(({ type }) => type === condition.type);
    if (mine !== undefined && mine.observedGeneration === 0 && condition.observedGeneration !== 0)
      this.#withoutGenerations.add(object.kind);
  }

  #tell({ object, conditions }: ObjectFacts, { status, reason, message }: Verdict): void {
    const before = conditions.find(({ type }) => type === conditionTypeOf(object.kind));
    if (status === 'True' && before?.status !== 'False') return;
    if (before?.status === status && before.message === message) return;
    const type = status === 'True' ? 'Normal' : 'Warning';
    this.#deps.events.record({ regarding: object, type, reason, action: 'Translate', note: message });
  }
}

function writable({ type, status, reason, message, observedGeneration, lastTransitionTime }: Condition) {
  return {
    ...{ type, status, reason, message },
    ...(observedGeneration === 0 ? {} : { observedGeneration }),
    ...(lastTransitionTime === '' ? {} : { lastTransitionTime }),
  };
}

function isSameList(a: readonly StatusAddress[], b: readonly StatusAddress[]): boolean {
  return (
    a.length === b.length && a.every(({ host, value }, i) => host === b[i]!.host && value === b[i]!.value)
  );
}
