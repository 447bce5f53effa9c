import { readFileSync } from 'node:fs';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { FilesError } from './errors.js';
import { type FileContent, readFileContent } from './file.js';
import {
  type FolderFile,
  type FolderScan,
  FolderWatch,
  type FolderWatchOptions,
  scanFolder,
} from './folder.js';
import type { Decoder, ManifestProblem, Source, SourceBatch } from './types.js';

export interface FolderSourceOptions extends FolderWatchOptions {
  readonly folder: string;
  /** Larger files are reported and not read. */
  readonly maxFileBytes: number;
}

/** A change acts within `quietMs` to `maxWaitMs`, plus the scan. */
export const FOLDER_SOURCE_DEFAULTS = {
  quietMs: 40,
  maxWaitMs: 120,
  rescanMs: 10_000,
  maxFileBytes: 64 << 20,
} as const;

export interface FolderSourceDeps<T> {
  readonly decode: Decoder<T>;
  readonly onBatch: (batch: SourceBatch<T>) => void;
  readonly log: Log;
}

interface KnownFile<T> {
  readonly stamp: string;
  readonly content: FileContent<T>;
}

/** Source `files`: a watched folder of manifests. What it hands on are valid objects only; see README.md for what happens to the others. */
export class FolderSource<T> implements Source {
  readonly #options: FolderSourceOptions;
  readonly #deps: FolderSourceDeps<T>;
  #watch: FolderWatch | null;
  #files: Map<string, KnownFile<T>>;
  #inForce: Map<string, T>;
  #problems: readonly ManifestProblem[];
  #unknownKinds: ReadonlyMap<string, number>;

  constructor(options: FolderSourceOptions, deps: FolderSourceDeps<T>) {
    this.#options = options;
    this.#deps = deps;
    this.#watch = null;
    this.#files = new Map();
    this.#inForce = new Map();
    this.#problems = [];
    this.#unknownKinds = new Map();
  }

  /** Everything wrong right now, by file and line. */
  get problems(): readonly ManifestProblem[] {
    return this.#problems;
  }

  /** @throws FilesError MANIFESTS_UNREADABLE if the folder cannot be listed. */
  async start(): Promise<void> {
    const { folder } = this.#options;
    const fault = scanFolder(folder).unreadable.find(({ path }) => path === folder);
    if (fault !== undefined)
      throw new FilesError('MANIFESTS_UNREADABLE', `manifest folder ${folder}: ${fault.reason}`, { folder });
    this.#watch = new FolderWatch(this.#options, { onDue: () => this.#scan() });
    this.#scan();
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = null;
  }

  #scan(): void {
    if (this.#watch === null) return;
    const scan = scanFolder(this.#options.folder);
    const problems: ManifestProblem[] = scan.unreadable.map(({ path, reason }) =>
      problemOfFile(path, reason),
    );
    // Watch before reading: what changes from here on brings another scan.
    this.#watch.watch(scan.directories);
    this.#files = this.#readAll(scan, problems);
    const inForce = this.#merge(problems);
    this.#report(problems);
    this.#emit(inForce);
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
      const text = readFileSync(file.path, 'utf8');
      const content = readFileContent({ path: file.path, text }, known?.content, this.#deps.decode);
      return { stamp: file.stamp, content };
    } catch (error) {
      // Without a new stamp it is tried again at the next scan.
      problems.push(problemOfFile(file.path, messageOf(error)));
      return known;
    }
  }

  /** Joins the files. An object that several define is the first file's; the others are problems. */
  #merge(problems: ManifestProblem[]): Map<string, T> {
    const inForce = new Map<string, T>();
    const definedIn = new Map<string, string>();
    const unknownKinds = new Map<string, number>();
    for (const path of [...this.#files.keys()].sort()) {
      const { content } = this.#files.get(path)!;
      problems.push(...content.problems);
      for (const [kind, count] of content.unknownKinds)
        unknownKinds.set(kind, (unknownKinds.get(kind) ?? 0) + count);
      for (const [key, { value, line }] of content.objects) {
        const first = definedIn.get(key);
        if (first === undefined) {
          definedIn.set(key, path);
          inForce.set(key, value);
        } else {
          const [kind, ...name] = key.split('/');
          const reason = `ignored: ${first} defines this object, too`;
          problems.push({ file: path, line, kind: kind!, name: name.join('/'), field: '', reason });
        }
      }
    }
    this.#reportUnknownKinds(unknownKinds);
    return inForce;
  }

  #report(problems: readonly ManifestProblem[]): void {
    const before = new Set(this.#problems.map(textOf));
    const now = new Set(problems.map(textOf));
    for (const problem of problems)
      if (!before.has(textOf(problem)))
        this.#deps.log.warn({ ...problem }, 'manifest problem; what was good before stays in force');
    for (const problem of this.#problems)
      if (!now.has(textOf(problem))) this.#deps.log.info({ ...problem }, 'manifest problem is gone');
    this.#problems = problems;
  }

  #reportUnknownKinds(unknownKinds: ReadonlyMap<string, number>): void {
    for (const [kind, count] of unknownKinds)
      if (!this.#unknownKinds.has(kind))
        this.#deps.log.info({ kind, count }, 'manifests of a kind that is not read here');
    this.#unknownKinds = unknownKinds;
  }

  #emit(inForce: Map<string, T>): void {
    const upserted = new Map<string, T>();
    for (const [key, value] of inForce) if (this.#inForce.get(key) !== value) upserted.set(key, value);
    const removed = [...this.#inForce.keys()].filter((key) => !inForce.has(key));
    this.#inForce = inForce;
    if (upserted.size > 0 || removed.length > 0) this.#deps.onBatch({ upserted, removed });
  }
}

function problemOfFile(file: string, reason: string): ManifestProblem {
  return { file, line: 0, kind: '', name: '', field: '', reason };
}

function textOf({ file, line, kind, name, field, reason }: ManifestProblem): string {
  return `${file}:${line} ${kind} ${name} ${field}: ${reason}`;
}
