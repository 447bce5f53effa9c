import type { Log } from '../log/index.js';
import { formatPath } from '../manifests/index.js';
import type { Decoder, ManifestProblem, RawObject, Remark, SourceBatch } from '../manifests/types.js';
import type { ApiClient } from './client.js';
import { Discovery } from './discovery.js';
import { REFLECTOR_DEFAULTS, Reflector, type ReflectorOptions } from './reflector.js';
import { ObjectTable } from './table.js';
import type { Entry, KindStatus, WatchedKind } from './types.js';

export interface KubernetesSourceOptions extends Omit<ReflectorOptions, 'watched'> {
  readonly kinds: readonly WatchedKind[];
}

export const KUBERNETES_SOURCE_DEFAULTS = REFLECTOR_DEFAULTS;

export interface KubernetesSourceDeps<T> {
  readonly client: ApiClient;
  readonly decode: Decoder<T>;
  /** First everything that there is, once every kind has been listed; then what changed of what is in force, or `isUnsettled`. */
  readonly onBatch: (batch: SourceBatch<T>) => void;
  /** Sees each object that comes, as the API server has it, and keeps what it needs of it; null: it is gone. Before its batch, and in lists that are not yet complete. */
  readonly observe?: (key: string, object: RawObject | null) => void;
  /** What is wrong with an object has changed; empty: nothing is. */
  readonly onProblems?: (key: string, problems: readonly ManifestProblem[]) => void;
  readonly log: Log;
  /** [0, 1); default Math.random. */
  readonly random?: () => number;
}

/** Source `kubernetes`: what an API server has. The same guarantees as `FolderSource`: valid objects only, the last good version of an invalid one stays. */
export class KubernetesSource<T> {
  readonly #log: Log;
  readonly #onBatch: (batch: SourceBatch<T>) => void;
  readonly #onProblems: (key: string, problems: readonly ManifestProblem[]) => void;
  readonly #reflectors: readonly Reflector<T>[];
  readonly #tables: ReadonlyMap<string, ObjectTable<T>>;
  /** By key, of objects that have any. */
  readonly #remarks: Map<string, readonly PlacedRemark[]>;
  #upserted: Map<string, T>;
  #removed: Set<string>;
  #flush: NodeJS.Immediate | null;
  #isSynced: boolean;
  #onStarted: (() => void) | null;

  constructor(options: KubernetesSourceOptions, deps: KubernetesSourceDeps<T>) {
    this.#log = deps.log;
    this.#onBatch = deps.onBatch;
    this.#onProblems = deps.onProblems ?? (() => {});
    this.#remarks = new Map();
    this.#upserted = new Map();
    this.#removed = new Set();
    this.#flush = null;
    this.#isSynced = false;
    this.#onStarted = null;
    const { client, decode, observe } = deps;
    const onChange = this.#onChange.bind(this);
    const ofTables = { decode, onChange, ...(observe === undefined ? {} : { observe }) };
    this.#tables = new Map(options.kinds.map(({ kind }) => [kind, new ObjectTable<T>({ kind }, ofTables)]));
    const shared = {
      client,
      discovery: new Discovery({ client }),
      onSynced: () => this.#onSynced(),
      log: deps.log,
      random: deps.random ?? Math.random,
    };
    this.#reflectors = options.kinds.map(
      (watched) =>
        new Reflector<T>({ ...options, watched }, { ...shared, table: this.#tables.get(watched.kind)! }),
    );
  }

  /** Everything wrong right now: objects by kind and name, and kinds that cannot be watched. */
  get problems(): readonly ManifestProblem[] {
    const ofWatches = this.status
      .filter(({ trouble }) => trouble !== '')
      .map(({ kind, trouble }) => ({
        ...PLACE,
        kind,
        name: '',
        field: '',
        reason: trouble,
        effect: AS_SEEN,
      }));
    return [...ofWatches, ...this.#told(true)];
  }

  /** What is worth knowing of objects, though nothing is wrong. */
  get notices(): readonly ManifestProblem[] {
    return this.#told(false);
  }

  /** By `kubernetes/<kind>`: since the API server was last heard of it, milliseconds. */
  get ages(): ReadonlyMap<string, number> {
    return new Map(this.status.map(({ kind, ageMs }) => [`kubernetes/${kind}`, ageMs]));
  }

  get status(): readonly KindStatus[] {
    return this.#reflectors.map((reflector) => reflector.status);
  }

  /** What has not been seen whole yet, in words. */
  get pending(): readonly string[] {
    return this.#reflectors
      .filter((reflector) => !reflector.isSynced)
      .map(({ status: { kind, trouble } }) => (trouble === '' ? kind : `${kind}: ${trouble}`));
  }

  /** What is in force. */
  *values(): Generator<T> {
    for (const table of this.#tables.values())
      for (const { value } of table.entries.values()) if (value !== undefined) yield value;
  }

  get(key: string): T | undefined {
    return this.#entryOf(key)?.value;
  }

  /** True: there is such an object, but it is invalid and no version of it is in force. */
  isUnsettled(key: string): boolean {
    const entry = this.#entryOf(key);
    return entry !== undefined && entry.value === undefined;
  }

  /** Resolves when the whole state has been handed on, however long that takes; never, if it is stopped before. */
  start(): Promise<void> {
    return new Promise((resolve) => {
      this.#onStarted = resolve;
      for (const reflector of this.#reflectors) void reflector.run();
      if (this.#reflectors.length === 0) this.#onSynced();
    });
  }

  stop(): void {
    for (const reflector of this.#reflectors) reflector.stop();
    if (this.#flush !== null) clearImmediate(this.#flush);
    this.#flush = null;
  }

  #onSynced(): void {
    if (this.#isSynced || !this.#reflectors.every((reflector) => reflector.isSynced)) return;
    this.#isSynced = true;
    this.#emit();
    this.#onStarted?.();
  }

  #onChange(key: string, before: Entry<T> | undefined, now: Entry<T> | undefined): void {
    this.#report(key, now);
    const wasUnsettled = before !== undefined && before.value === undefined;
    const isUnsettled = now !== undefined && now.value === undefined;
    if (before?.value === now?.value && wasUnsettled === isUnsettled) return;
    if (now?.value !== undefined) {
      this.#upserted.set(key, now.value);
      this.#removed.delete(key);
    } else {
      this.#upserted.delete(key);
      if (before?.value !== undefined) this.#removed.add(key);
    }
    // All that one piece of a stream brings is one step.
    if (this.#isSynced) this.#flush ??= setImmediate(() => this.#emit());
  }

  #emit(): void {
    this.#flush = null;
    const batch = { upserted: this.#upserted, removed: [...this.#removed] };
    this.#upserted = new Map();
    this.#removed = new Set();
    this.#onBatch(batch);
  }

  #report(key: string, now: Entry<T> | undefined): void {
    const before = this.#remarks.get(key) ?? [];
    const remarks = (now?.remarks ?? []).map((remark) => placed(key, remark));
    if (before.length === 0 && remarks.length === 0) return;
    const isIn = (list: readonly PlacedRemark[], { problem }: PlacedRemark) =>
      list.some(({ problem: { field, reason } }) => field === problem.field && reason === problem.reason);
    for (const remark of remarks)
      if (!isIn(before, remark)) {
        if (remark.isProblem) this.#log.warn({ ...remark.problem }, 'object has a problem');
        else this.#log.info({ ...remark.problem }, 'notice of an object');
      }
    for (const remark of before)
      if (!isIn(remarks, remark))
        this.#log.info({ ...remark.problem }, 'problem or notice of an object is gone');
    if (remarks.length === 0) this.#remarks.delete(key);
    else this.#remarks.set(key, remarks);
    const problems = [...remarks].filter(({ isProblem }) => isProblem).map(({ problem }) => problem);
    this.#onProblems(key, problems);
  }

  #told(isProblem: boolean): readonly ManifestProblem[] {
    return [...this.#remarks.values()]
      .flat()
      .filter((remark) => remark.isProblem === isProblem)
      .map(({ problem }) => problem);
  }

  #entryOf(key: string): Entry<T> | undefined {
    return this.#tables.get(key.slice(0, key.indexOf('/')))?.entries.get(key);
  }
}

/** Where people find it: no file. */
const PLACE = { file: 'kubernetes', line: 0 } as const;

/** Of a watch that is interrupted. */
const AS_SEEN = 'what was seen last stays in force';

interface PlacedRemark {
  readonly problem: ManifestProblem;
  readonly isProblem: boolean;
}

function placed(key: string, { path, reason, effect, isProblem }: Remark): PlacedRemark {
  const [kind, ...name] = key.split('/');
  const field = formatPath(path);
  return { problem: { ...PLACE, kind: kind!, name: name.join('/'), field, reason, effect }, isProblem };
}
