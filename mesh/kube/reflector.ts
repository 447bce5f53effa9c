import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../common/errors.js';
import type { Log } from '../log/index.js';
import { BACKOFF_DEFAULTS, Backoff, type BackoffOptions } from './backoff.js';
import type { ApiClient } from './client.js';
import type { Discovery } from './discovery.js';
import { KubeError, statusOf } from './errors.js';
import { objectOf, parseEvent, recordOf, textOf } from './events.js';
import { LineSplitter } from './lines.js';
import type { ObjectTable } from './table.js';
import type { KindStatus, Place, WatchedKind, WatchState } from './types.js';

export interface ReflectorOptions extends BackoffOptions {
  readonly watched: WatchedKind;
  /** Ask for lists as a stream of events; where that is not served they are paged all the same. */
  readonly streamsLists: boolean;
  /** Objects a page. */
  readonly pageSize: number;
  /** A watch that says nothing for so long has stalled; a healthy one has a bookmark a minute. */
  readonly maxSilenceMs: number;
  /** The API server is asked to end a watch after this, or up to twice this. */
  readonly watchMs: number;
  /** How often a kind that is not served is looked for. */
  readonly absentRetryMs: number;
  readonly maxEventBytes: number;
}

export const REFLECTOR_DEFAULTS = {
  ...BACKOFF_DEFAULTS,
  streamsLists: true,
  pageSize: 500,
  maxSilenceMs: 100_000,
  watchMs: 300_000,
  absentRetryMs: 15_000,
  maxEventBytes: 16 << 20,
} as const;

export interface ReflectorDeps<T> {
  readonly client: ApiClient;
  readonly discovery: Discovery;
  readonly table: ObjectTable<T>;
  /** First complete listing, or found to be absent; once. */
  readonly onSynced: () => void;
  readonly log: Log;
  readonly random: () => number;
}

/** A watch that lasted so long was a good one: the next trouble is a new one. */
const GOOD_WATCH_MS = 10_000;
/** After so many watches in a row that stalled without a word the history that we follow may be another one (etcd was restored): list anew. */
const MAX_SILENT_WATCHES = 2;

/** Keeps the objects of one kind equal to the API server's: list, watch, and again from where the watch ended. */
export class Reflector<T> {
  readonly #options: ReflectorOptions;
  readonly #deps: ReflectorDeps<T>;
  readonly #backoff: Backoff;
  readonly #stopping = new AbortController();
  #place: Place | null = null;
  /** Where the next watch goes on; null: by a listing. */
  #resourceVersion: string | null = null;
  #state: WatchState = 'starting';
  #trouble = '';
  #heardMs = performance.now();
  #streamsLists: boolean;
  #pageSize: number;
  #reusesVersions = true;
  /** Undefined: we are ourselves. */
  #asUser: string | undefined;
  #refusals = 0;
  /** In a row, and without a single word. */
  #silentWatches = 0;
  /** The API server has begun to answer the watch that is, or was last, asked for. */
  #isOpen = false;
  /** That there is nothing to hear of it has been told. */
  #isQuiet = false;
  #listings = 0;
  #isSynced = false;

  constructor(options: ReflectorOptions, deps: ReflectorDeps<T>) {
    this.#options = options;
    this.#deps = deps;
    this.#streamsLists = options.streamsLists;
    this.#pageSize = options.pageSize;
    this.#asUser = options.watched.asUser;
    this.#backoff = new Backoff(options, deps);
  }

  get status(): KindStatus {
    return {
      kind: this.#options.watched.kind,
      state: this.#state,
      apiVersion: this.#place?.apiVersion ?? '',
      objects: this.#deps.table.size,
      ageMs: performance.now() - this.#heardMs,
      listings: this.#listings,
      trouble: this.#trouble,
    };
  }

  get isSynced(): boolean {
    return this.#isSynced;
  }

  stop(): void {
    this.#stopping.abort();
  }

  /** Resolves when stopped; whatever happens, it goes on. */
  async run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      let waitMs = 0;
      try {
        waitMs = await this.#round(signal);
      } catch (error) {
        if (signal.aborted) return;
        waitMs = this.#recover(error);
      }
      if (waitMs > 0) await sleep(waitMs, undefined, { signal, ref: true }).catch(() => {});
    }
  }

  /** One watch, with what has to come before it. Gives how long to wait before the next, milliseconds. */
  async #round(signal: AbortSignal): Promise<number> {
    this.#place ??= await this.#deps.discovery.find(this.#options.watched, signal);
    if (this.#place === null) return this.#absent();
    if (this.#resourceVersion === null && !this.#streamsLists) await this.#listPages(this.#place, signal);
    return await this.#watch(this.#place, signal);
  }

  /** What was there stays: whoever removes a CRD removes its objects first, and that was told, or could not be seen. */
  #absent(): number {
    this.#heard();
    this.#enter('absent', this.#deps.table.size === 0 ? '' : 'no longer served; what was seen last stays');
    this.#synced();
    return this.#options.absentRetryMs * (0.75 + this.#deps.random() / 2);
  }

  async #listPages({ path, apiVersion }: Place, signal: AbortSignal): Promise<void> {
    const { table } = this.#deps;
    table.beginListing(this.#reusesVersions);
    let next = '';
    let resourceVersion = '';
    do {
      const query = { ...this.#selection(), limit: String(this.#pageSize), ...(next && { continue: next }) };
      const page = recordOf(await this.#deps.client.request({ path, query, signal, asUser: this.#asUser }));
      const items = page?.['items'];
      if (!Array.isArray(items)) throw new KubeError('KUBE_PROTOCOL', `${path} is not answered with a list`);
      for (const item of items) table.put(apiVersion, objectOf(item));
      const metadata = recordOf(page?.['metadata']);
      next = textOf(metadata?.['continue']);
      resourceVersion = textOf(metadata?.['resourceVersion']);
      this.#heard();
    } while (next !== '');
    this.#listed(resourceVersion);
  }

  async #watch(place: Place, signal: AbortSignal): Promise<number> {
    const { watchMs, maxSilenceMs, maxEventBytes } = this.#options;
    const seconds = Math.ceil((watchMs / 1000) * (1 + this.#deps.random()));
    if (this.#resourceVersion === null) this.#deps.table.beginListing(this.#reusesVersions);
    const query = {
      ...this.#selection(),
      watch: 'true',
      allowWatchBookmarks: 'true',
      timeoutSeconds: String(seconds),
      resourceVersion: this.#resourceVersion ?? '',
      ...(this.#resourceVersion === null && {
        sendInitialEvents: 'true',
        resourceVersionMatch: 'NotOlderThan',
      }),
    };
    const openedMs = performance.now();
    this.#isOpen = false;
    const lines = new LineSplitter({ maxLineBytes: maxEventBytes }, (line) => this.#take(place, line));
    try {
      await this.#deps.client.stream(
        { path: place.path, query, signal, asUser: this.#asUser },
        {
          maxSilenceMs,
          onOpen: () => this.#opened(),
          onData: (chunk) => {
            this.#heard();
            this.#silentWatches = -1;
            lines.push(chunk);
          },
        },
      );
    } finally {
      if (performance.now() - openedMs >= GOOD_WATCH_MS) this.#backoff.reset();
    }
    if (this.#deps.table.isListing) throw new KubeError('KUBE_UNREACHABLE', 'the list ended before its end');
    // In time: at once, times differ anyway. Early: the server goes, and everybody else comes back, too.
    return performance.now() - openedMs >= (seconds - 1) * 1000 ? 0 : this.#backoff.next();
  }

  #take(place: Place, line: string): void {
    const { table } = this.#deps;
    const event = parseEvent(line);
    if (event.type === 'bookmark') {
      if (event.isInitialEnd && table.isListing) this.#listed(event.resourceVersion);
      else this.#follow(event.resourceVersion);
      return;
    }
    if (event.type === 'put') table.put(place.apiVersion, event.object);
    else table.remove(event.object);
    this.#follow(textOf(event.object.metadata['resourceVersion']));
  }

  /** Within a listing there is no place to go on from yet. */
  #follow(resourceVersion: string): void {
    if (resourceVersion !== '' && !this.#deps.table.isListing) this.#resourceVersion = resourceVersion;
  }

  #listed(resourceVersion: string): void {
    if (resourceVersion === '') throw new KubeError('KUBE_PROTOCOL', 'a list without resourceVersion');
    this.#deps.table.completeListing();
    this.#resourceVersion = resourceVersion;
    this.#reusesVersions = true;
    this.#listings++;
    this.#enter('watching', '');
    this.#synced();
  }

  #opened(): void {
    this.#heard();
    this.#isOpen = true;
    if (this.#isSynced && this.#resourceVersion !== null) this.#enter('watching', '');
  }

  #recover(error: unknown): number {
    const status = statusOf(error);
    const { code, data } =
      error instanceof KubeError ? error : { code: null, data: {} as { retryAfterMs?: unknown } };
    const isStreamedList = this.#deps.table.isListing && this.#streamsLists;
    if (status === 404) this.#place = null;
    if (status === 410 || isVersionFault(error)) this.#resourceVersion = null;
    if (isStreamedList && (status === 400 || status === 422)) {
      this.#streamsLists = false; // not served here
      return 1;
    }
    const { asUser } = this.#options.watched;
    if (status === 403 && asUser !== undefined) {
      this.#asUser = this.#asUser === undefined ? asUser : undefined;
      if (++this.#refusals === 1) return 1; // impersonation is not for us here
    }
    if (code === 'KUBE_PROTOCOL') {
      this.#resourceVersion = null;
      this.#pageSize = Math.max(1, Math.floor(this.#pageSize / 4)); // one that was too long, perhaps
    }
    if (code === 'KUBE_SILENT' && isStreamedList) this.#streamsLists = false;
    else if (code === 'KUBE_SILENT') {
      const isEmpty = this.#isOpen && this.#deps.table.size === 0;
      this.#countSilence();
      if (isEmpty) return this.#quiet();
    }
    this.#enter('interrupted', messageOf(error));
    return this.#backoff.next(Number(data['retryAfterMs'] ?? 0));
  }

  /** Of no objects there is nothing to say, and not every API server sends bookmarks then. Were it gone, the next watch would not open. */
  #quiet(): number {
    const { kind } = this.#options.watched;
    if (!this.#isQuiet) this.#deps.log.info({ kind }, 'watch of no objects is silent; asked for again');
    this.#isQuiet = true;
    return this.#backoff.next();
  }

  #countSilence(): void {
    // -1: this one had something to say before it stalled.
    if (++this.#silentWatches < MAX_SILENT_WATCHES) return;
    this.#silentWatches = 0;
    this.#resourceVersion = null;
    this.#reusesVersions = false;
  }

  #selection(): Record<string, string> {
    const { fieldSelector } = this.#options.watched;
    return fieldSelector === undefined ? {} : { fieldSelector };
  }

  #heard(): void {
    this.#heardMs = performance.now();
  }

  #synced(): void {
    if (this.#isSynced) return;
    this.#isSynced = true;
    this.#deps.onSynced();
  }

  #enter(state: WatchState, trouble: string): void {
    const { log, table } = this.#deps;
    const isNews = state !== this.#state || trouble !== this.#trouble;
    this.#state = state;
    this.#trouble = trouble;
    if (!isNews) return;
    const { kind } = this.#options.watched;
    const what = { kind, apiVersion: this.#place?.apiVersion ?? '', objects: table.size };
    if (state === 'interrupted')
      log.warn({ ...what, reason: trouble }, 'watch interrupted; what was seen stays');
    else if (state === 'absent') log.info(what, 'kind is not served; it is looked for again now and then');
    else log.info(what, 'watching');
  }
}

/** 504 of a list, or an error inside a watch: our version is ahead of all that this API server knows. */
function isVersionFault(error: unknown): boolean {
  return statusOf(error) === 504 && messageOf(error).includes('Too large resource version');
}
