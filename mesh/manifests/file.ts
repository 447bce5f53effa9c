import { messageOf } from '../common/errors.js';
import { type ManifestDocument, readDocuments } from './documents.js';
import { formatPath, isRecord } from './fields.js';
import { remarksOf } from './remarks.js';
import type { Decoded, Decoder, FieldPath, ManifestProblem, RawObject, Remark } from './types.js';

interface FileObject<T> {
  readonly value: T;
  readonly line: number;
  /** False: it holds the place of one that was never good. */
  readonly isGood: boolean;
}

/** What one file holds in force: its valid objects, and last good versions (or what holds their place) of those that are not valid now. */
export interface FileContent<T> {
  readonly objects: ReadonlyMap<string, FileObject<T>>;
  /** Keys of objects that are invalid, were never good, and whose place nothing holds. */
  readonly invalidKeys: ReadonlySet<string>;
  readonly problems: readonly ManifestProblem[];
  /** What is worth knowing, though nothing is wrong. */
  readonly notices: readonly ManifestProblem[];
}

/** One for all sound files: there may be thousands. */
const NO_KEYS: ReadonlySet<string> = new Set();
const NO_NOTICES: readonly ManifestProblem[] = [];

/** What objects are read, and how. */
export interface Reading<T> {
  readonly decode: Decoder<T>;
  /** Objects of other kinds are passed over unseen, whatever their form. Null: every object is shown to `decode`. */
  readonly onlyKinds: ReadonlySet<string> | null;
}

/**
 * Reads a file's text against what it held before. An object that is invalid now keeps its last good version; while a document cannot even
 * be identified, nothing of the file is taken as deleted.
 */
export function readFileContent<T>(
  file: { readonly path: string; readonly text: string; readonly secretFault?: string | null },
  before: FileContent<T> | undefined,
  reading: Reading<T>,
): FileContent<T> {
  const reader = new FileReader(file, before, reading);
  const { documents, problems } = readDocuments(file.text, file.path.endsWith('.json') ? 'json' : 'yaml');
  for (const { line, reason } of problems) reader.unidentified(line, {}, [], reason);
  for (const document of documents) reader.read(document);
  return reader.finish();
}

class FileReader<T> {
  readonly #path: string;
  /** Why the file may hold no Secret; null: it may. */
  readonly #secretFault: string | null;
  readonly #before: FileContent<T> | undefined;
  readonly #reading: Reading<T>;
  readonly #objects: Map<string, FileObject<T>>;
  readonly #invalidKeys: Set<string>;
  readonly #problems: ManifestProblem[];
  readonly #notices: ManifestProblem[];
  /** Where each object of this text begins. */
  readonly #lines: Map<string, number>;
  #allIdentified: boolean;

  constructor(
    file: { readonly path: string; readonly secretFault?: string | null },
    before: FileContent<T> | undefined,
    reading: Reading<T>,
  ) {
    this.#path = file.path;
    this.#secretFault = file.secretFault ?? null;
    this.#before = before;
    this.#reading = reading;
    this.#objects = new Map();
    this.#invalidKeys = new Set();
    this.#problems = [];
    this.#notices = [];
    this.#lines = new Map();
    this.#allIdentified = true;
  }

  read(document: ManifestDocument): void {
    const { value } = document;
    if (this.#isPassedOver(value)) return;
    const fault = faultOfForm(value);
    if (fault !== null) {
      this.unidentified(document.lineOf(fault.path), value, fault.path, fault.reason);
      return;
    }
    const object = value as RawObject;
    if (object.kind === 'Secret' && this.#secretFault !== null) {
      this.unidentified(document.lineOf([]), value, [], `the file holds a Secret and ${this.#secretFault}`);
      return;
    }
    const decoded = this.#decode(document, object);
    if (decoded === null) return;
    if (decoded.outcome === 'unknown-kind') {
      this.#tell(document, value, remarksOf(decoded, false));
      return;
    }
    const { key } = decoded;
    const first = this.#lines.get(key);
    if (first !== undefined) {
      const reason = `defined twice in this file, first in line ${first}`;
      const remark = { path: [], reason, effect: 'the first one is in force', isProblem: true };
      this.#tell(document, value, [remark]);
      return;
    }
    const line = document.lineOf([]);
    this.#lines.set(key, line);
    const hasGood = this.#before?.objects.get(key)?.isGood === true;
    this.#tell(document, value, remarksOf(decoded, hasGood));
    if (decoded.outcome === 'object') this.#objects.set(key, { value: decoded.value, line, isGood: true });
    if (decoded.outcome !== 'invalid') return;
    const { inPlace } = decoded;
    if (inPlace !== undefined && !hasGood) this.#objects.set(key, { value: inPlace, line, isGood: false });
    else this.#invalid(key);
  }

  /** Null: our own error, which must not cost the file's other objects. */
  #decode(document: ManifestDocument, object: RawObject): Decoded<T> | null {
    try {
      return this.#reading.decode(object);
    } catch (error) {
      this.unidentified(document.lineOf([]), object, [], `cannot be read: ${messageOf(error)}`);
      return null;
    }
  }

  unidentified(line: number, value: unknown, path: FieldPath, reason: string): void {
    this.#allIdentified = false;
    const hadAny = this.#before !== undefined && this.#before.objects.size > 0;
    const effect = hadAny
      ? 'everything that the file had before stays in force'
      : 'nothing of it is in force';
    this.#problems.push(this.#problemOf(line, value, { path, reason, effect }));
  }

  finish(): FileContent<T> {
    if (!this.#allIdentified)
      for (const key of [...(this.#before?.objects.keys() ?? []), ...(this.#before?.invalidKeys ?? [])])
        if (!this.#lines.has(key)) this.#invalid(key);
    return {
      objects: this.#objects,
      invalidKeys: this.#invalidKeys.size === 0 ? NO_KEYS : this.#invalidKeys,
      problems: this.#problems,
      notices: this.#notices.length === 0 ? NO_NOTICES : this.#notices,
    };
  }

  #isPassedOver(value: unknown): boolean {
    const { onlyKinds } = this.#reading;
    return (
      onlyKinds !== null &&
      isRecord(value) &&
      typeof value['kind'] === 'string' &&
      !onlyKinds.has(value['kind'])
    );
  }

  /** What was in force of it stays, if there was anything. */
  #invalid(key: string): void {
    const lastGood = this.#before?.objects.get(key);
    if (lastGood === undefined) this.#invalidKeys.add(key);
    else this.#objects.set(key, lastGood);
  }

  #tell(document: ManifestDocument, value: unknown, remarks: readonly Remark[]): void {
    for (const remark of remarks) {
      const list = remark.isProblem ? this.#problems : this.#notices;
      list.push(this.#problemOf(document.lineOf(remark.path), value, remark));
    }
  }

  #problemOf(line: number, value: unknown, remark: Omit<Remark, 'isProblem'>): ManifestProblem {
    const { path, reason, effect } = remark;
    return { file: this.#path, line, ...labelOf(value), field: formatPath(path), reason, effect };
  }
}

/** Why this is no Kubernetes object, or null. */
function faultOfForm(value: unknown): { path: FieldPath; reason: string } | null {
  if (!isRecord(value)) return { path: [], reason: 'not an object with apiVersion, kind and metadata' };
  for (const field of ['apiVersion', 'kind'] as const)
    if (typeof value[field] !== 'string' || value[field] === '')
      return { path: [field], reason: 'must be a text and is required' };
  if (!isRecord(value['metadata']))
    return { path: ['metadata'], reason: 'must be an object and is required' };
  const { name } = value['metadata'];
  if (name === undefined && typeof value['metadata']['generateName'] === 'string')
    return { path: ['metadata', 'name'], reason: 'is required: nobody here makes a name of generateName' };
  if (typeof name !== 'string' || name === '')
    return { path: ['metadata', 'name'], reason: 'must be a text and is required' };
  return null;
}

/** Kind and `namespace/name` for people, as far as they are there. */
function labelOf(value: unknown): { kind: string; name: string } {
  if (!isRecord(value)) return { kind: '', name: '' };
  const metadata = isRecord(value['metadata']) ? value['metadata'] : {};
  const parts = [metadata['namespace'], metadata['name']].filter((part) => typeof part === 'string');
  return { kind: typeof value['kind'] === 'string' ? value['kind'] : '', name: parts.join('/') };
}
