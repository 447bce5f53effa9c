import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { messageOf } from '../common/errors.js';
import { worldAccessTo } from '../common/secret-mode.js';
import type { Log } from '../log/index.js';
import { ManifestsError } from './errors.js';
import { type FileContent, type Reading, readFileContent } from './file.js';
import {
  type FolderFile,
  type FolderScan,
  FolderWatch,
  type FolderWatchOptions,
  scanFolder,
} from './folder.js';
import type { Decoder, ManifestProblem, SourceBatch } from './types.js';

export interface FolderSourceOptions extends FolderWatchOptions {
  readonly folder: string;
  /** Larger files are reported and not read. */
  readonly maxFileBytes: number;
  /** Objects of other kinds are passed over unseen, whatever their form; null: the decoder sees every object. */
  readonly onlyKinds: ReadonlySet<string> | null;
}

/** So long a file that ends within a line must have been quiet: with the scan, below the 200 ms within which a change acts. */
const UNFINISHED_QUIET_MS = 130;

/** A change acts within `quietMs` to `maxWaitMs`, plus the scan. */
export const FOLDER_SOURCE_DEFAULTS = {
  quietMs: 40,
  maxWaitMs: 120,
  rescanMs: 10_000,
  /** Reading takes some 50 times as much memory. */
  maxFileBytes: 16 << 20,
  onlyKinds: null,
} as const;

export interface FolderSourceDeps<T> {
  readonly decode: Decoder<T>;
  /** After a scan that changed what is in force, or `invalidKeys`. */
  readonly onBatch: (batch: SourceBatch<T>) => void;
  /** After every scan that found other problems or notices than the one before, and after the first. */
  readonly onProblems?: (problems: readonly ManifestProblem[], notices: readonly ManifestProblem[]) => void;
  readonly log: Log;
}

interface KnownFile<T> {
  readonly stamp: string;
  readonly content: FileContent<T>;
}

/** Source `files`: a watched folder of manifests. What it hands on are valid objects only; see README.md for what happens to the others. */
export class FolderSource<T> {
  readonly #options: FolderSourceOptions;
  readonly #deps: FolderSourceDeps<T>;
  readonly #reading: Reading<T>;
  #watch: FolderWatch | null;
  #files: Map<string, KnownFile<T>>;
  #inForce: Map<string, T>;
  #invalidKeys: ReadonlySet<string>;
  #problems: readonly ManifestProblem[];
  #notices: readonly ManifestProblem[];
  #readAtMs = performance.now();
  #hasReported = false;

  constructor(options: FolderSourceOptions, deps: FolderSourceDeps<T>) {
    this.#options = options;
    this.#deps = deps;
    this.#reading = { decode: deps.decode, onlyKinds: options.onlyKinds };
    this.#watch = null;
    this.#files = new Map();
    this.#inForce = new Map();
    this.#invalidKeys = new Set();
    this.#problems = [];
    this.#notices = [];
  }

  /** Everything wrong right now, by file and line. */
  get problems(): readonly ManifestProblem[] {
    return this.#problems;
  }

  /** What is worth knowing right now, though nothing is wrong: kinds of a mesh that are not read here, … */
  get notices(): readonly ManifestProblem[] {
    return this.#notices;
  }

  /** Since the folder was last seen whole, milliseconds. */
  get ageMs(): number {
    return performance.now() - this.#readAtMs;
  }

  get folder(): string {
    return this.#options.folder;
  }

  /** What is in force, by key. */
  get objects(): ReadonlyMap<string, T> {
    return this.#inForce;
  }

  /** Keys of objects that are invalid and have no good version in force. */
  get invalidKeys(): ReadonlySet<string> {
    return this.#invalidKeys;
  }

  /** Resolves when the whole state has been handed on. @throws ManifestsError MANIFESTS_UNREADABLE if the folder cannot be listed. */
  async start(): Promise<void> {
    const { folder } = this.#options;
    const scan = scanFolder(folder);
    const fault = scan.unreadable.find(({ path }) => path === folder);
    if (fault !== undefined)
      throw new ManifestsError('MANIFESTS_UNREADABLE', `manifest folder ${folder}: ${fault.reason}`, {
        folder,
      });
    this.#watch = new FolderWatch(this.#options, {
      onDue: () => this.#take(scanFolder(folder)),
      log: this.#deps.log,
    });
    this.#take(scan);
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = null;
  }

  #take(scan: FolderScan): void {
    const problems: ManifestProblem[] = scan.unreadable.map(({ path, reason }) =>
      problemOfFile(path, reason),
    );
    const notices: ManifestProblem[] = [];
    // Watch before reading: what changes from here on brings another scan.
    this.#watch?.watch(scan.directories);
    const { folder } = this.#options;
    if (scan.unreadable.some(({ path }) => path === folder)) this.#watch?.again();
    else this.#readAtMs = performance.now();
    this.#files = this.#readAll(scan, problems);
    const { inForce, invalidKeys } = this.#merge(problems, notices);
    const isNews = this.#report(problems, notices);
    this.#emit(inForce, invalidKeys);
    if (isNews) this.#deps.onProblems?.(problems, notices);
  }

  #readAll(scan: FolderScan, problems: ManifestProblem[]): Map<string, KnownFile<T>> {
    const files = new Map<string, KnownFile<T>>();
    for (const [path, known] of this.#files)
      if (scan.unreadable.some((fault) => path === fault.path || path.startsWith(`${fault.path}/`)))
        files.set(path, known);
    for (const file of scan.files) {
      const known = this.#readOne(file, this.#files.get(file.path), problems);
      if (known !== undefined) files.set(file.path, known);
    }
    return files;
  }

  #readOne(
    file: FolderFile,
    known: KnownFile<T> | undefined,
    problems: ManifestProblem[],
  ): KnownFile<T> | undefined {
    if (known?.stamp === file.stamp) return known;
    try {
      if (file.bytes > this.#options.maxFileBytes)
        throw new Error(`${file.bytes} bytes are more than the limit of ${this.#options.maxFileBytes}`);
      const text = textOfUtf8(readFileSync(file.path));
      if (this.#hasReported && isUnfinished(text, file)) {
        this.#watch?.again();
        return known; // its old stamp: it is read again
      }
      const content = readFileContent(
        { path: file.path, text, secretFault: worldAccessTo(file.path) },
        known?.content,
        this.#reading,
      );
      return { stamp: file.stamp, content };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined; // gone since the scan
      // Without a new stamp it is tried again at the next scan.
      problems.push(problemOfFile(file.path, messageOf(error)));
      return known;
    }
  }

  /** Joins the files. An object that several define is the first file's; the others are problems. */
  #merge(
    problems: ManifestProblem[],
    notices: ManifestProblem[],
  ): { inForce: Map<string, T>; invalidKeys: Set<string> } {
    const inForce = new Map<string, T>();
    const invalidKeys = new Set<string>();
    const definedIn = new Map<string, string>();
    for (const path of [...this.#files.keys()].sort()) {
      const { content } = this.#files.get(path)!;
      problems.push(...content.problems);
      notices.push(...content.notices);
      for (const key of content.invalidKeys) invalidKeys.add(key);
      for (const [key, { value, line }] of content.objects) {
        const first = definedIn.get(key);
        if (first === undefined) {
          definedIn.set(key, path);
          inForce.set(key, value);
        } else problems.push(problemOfSecond(key, path, line, first));
      }
    }
    for (const key of invalidKeys) if (inForce.has(key)) invalidKeys.delete(key);
    return { inForce, invalidKeys };
  }

  /** Tells the log what is new and what is gone; true where anything is. */
  #report(problems: readonly ManifestProblem[], notices: readonly ManifestProblem[]): boolean {
    const { log } = this.#deps;
    const isNews = [
      tellChanges(this.#problems, problems, {
        come: (problem) => log.warn({ ...problem }, 'manifest problem'),
        gone: (problem) => log.info({ ...problem }, 'manifest problem is gone'),
      }),
      tellChanges(this.#notices, notices, {
        come: (notice) => log.info({ ...notice }, 'manifest notice'),
        gone: (notice) => log.info({ ...notice }, 'manifest notice is gone'),
      }),
      !this.#hasReported,
    ].includes(true);
    this.#problems = problems;
    this.#notices = notices;
    this.#hasReported = true;
    return isNews;
  }

  #emit(inForce: Map<string, T>, invalidKeys: Set<string>): void {
    const upserted = new Map<string, T>();
    for (const [key, value] of inForce) if (this.#inForce.get(key) !== value) upserted.set(key, value);
    const removed = [...this.#inForce.keys()].filter((key) => !inForce.has(key));
    const sameInvalid =
      invalidKeys.size === this.#invalidKeys.size &&
      [...invalidKeys].every((key) => this.#invalidKeys.has(key));
    this.#inForce = inForce;
    this.#invalidKeys = invalidKeys;
    if (upserted.size > 0 || removed.length > 0 || !sameInvalid) this.#deps.onBatch({ upserted, removed });
  }
}

/** A text of lines that ends within one may still be being written; JSON is told by its brackets. */
function isUnfinished(text: string, { path, writtenAtMs }: FolderFile): boolean {
  if (text === '' || text.endsWith('\n') || path.endsWith('.json')) return false;
  const ageMs = Date.now() - writtenAtMs;
  return ageMs >= 0 && ageMs < UNFINISHED_QUIET_MS;
}

/** Throws where it is not UTF-8: a replaced character would be read as something else. */
function textOfUtf8(bytes: Buffer): string {
  if (!isUtf8(bytes)) throw new Error('is not UTF-8');
  return bytes.toString('utf8').replace(/^\uFEFF/, '');
}

/** True where anything has come or gone. */
function tellChanges(
  before: readonly ManifestProblem[],
  now: readonly ManifestProblem[],
  tell: Readonly<Record<'come' | 'gone', (problem: ManifestProblem) => void>>,
): boolean {
  const [known, present] = [new Set(before.map(textOf)), new Set(now.map(textOf))];
  const come = now.filter((problem) => !known.has(textOf(problem)));
  const gone = before.filter((problem) => !present.has(textOf(problem)));
  come.forEach(tell.come);
  gone.forEach(tell.gone);
  return come.length + gone.length > 0;
}

function problemOfSecond(key: string, file: string, line: number, first: string): ManifestProblem {
  const [kind, ...name] = key.split('/');
  const reason = `${first} defines this object, too`;
  return { file, line, kind: kind!, name: name.join('/'), field: '', reason, effect: 'ignored' };
}

function problemOfFile(file: string, reason: string): ManifestProblem {
  const effect = 'what was in force of it stays';
  return { file, line: 0, kind: '', name: '', field: '', reason, effect };
}

function textOf({ file, line, kind, name, field, reason, effect }: ManifestProblem): string {
  return `${file}:${line} ${kind} ${name} ${field}: ${reason}: ${effect}`;
}
