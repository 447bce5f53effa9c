import { type ManifestDocument, readDocuments } from './documents.js';
import type { Decoder, FieldPath, ManifestProblem, RawObject } from './types.js';

/** What one file holds in force: its valid objects, and last good versions of those that are not valid now. */
export interface FileContent<T> {
  readonly objects: ReadonlyMap<string, { readonly value: T; readonly line: number }>;
  readonly problems: readonly ManifestProblem[];
  /** Kinds that nobody here reads, with how many. */
  readonly unknownKinds: ReadonlyMap<string, number>;
}

/**
 * Reads a file's text against what it held before. An object that is invalid now keeps its last good version; while a document cannot even
 * be identified, nothing of the file is taken as deleted.
 */
export function readFileContent<T>(
  file: { readonly path: string; readonly text: string },
  before: FileContent<T> | undefined,
  decode: Decoder<T>,
): FileContent<T> {
  const reader = new FileReader(file.path, before, decode);
  const { documents, problems } = readDocuments(file.text, file.path.endsWith('.json') ? 'json' : 'yaml');
  for (const { line, reason } of problems) reader.unidentified(line, '', '', [], reason);
  for (const document of documents) reader.read(document);
  return reader.finish();
}

class FileReader<T> {
  readonly #path: string;
  readonly #before: FileContent<T> | undefined;
  readonly #decode: Decoder<T>;
  readonly #objects: Map<string, { value: T; line: number }>;
  readonly #problems: ManifestProblem[];
  readonly #unknownKinds: Map<string, number>;
  #allIdentified: boolean;

  constructor(path: string, before: FileContent<T> | undefined, decode: Decoder<T>) {
    this.#path = path;
    this.#before = before;
    this.#decode = decode;
    this.#objects = new Map();
    this.#problems = [];
    this.#unknownKinds = new Map();
    this.#allIdentified = true;
  }

  read(document: ManifestDocument): void {
    const fault = faultOfForm(document.value);
    if (fault !== null) {
      const { kind, name } = labelOf(document.value);
      this.unidentified(document.lineOf(fault.path), kind, name, fault.path, fault.reason);
      return;
    }
    const object = document.value as RawObject;
    const decoded = this.#decode(object);
    if (decoded.outcome === 'unknown-kind') {
      const kind = `${object.apiVersion} ${object.kind}`;
      this.#unknownKinds.set(kind, (this.#unknownKinds.get(kind) ?? 0) + 1);
    } else if (this.#objects.has(decoded.key)) {
      this.#problem(
        document,
        object,
        [],
        `defined twice in this file, first in line ${this.#objects.get(decoded.key)!.line}`,
      );
    } else if (decoded.outcome === 'object') {
      this.#objects.set(decoded.key, { value: decoded.value, line: document.lineOf([]) });
    } else {
      for (const { path, reason } of decoded.problems) this.#problem(document, object, path, reason);
      this.#keep(decoded.key);
    }
  }

  unidentified(line: number, kind: string, name: string, path: FieldPath, reason: string): void {
    this.#allIdentified = false;
    this.#problems.push({ file: this.#path, line, kind, name, field: formatPath(path), reason });
  }

  finish(): FileContent<T> {
    if (!this.#allIdentified) for (const key of this.#before?.objects.keys() ?? []) this.#keep(key);
    return { objects: this.#objects, problems: this.#problems, unknownKinds: this.#unknownKinds };
  }

  #keep(key: string): void {
    const lastGood = this.#before?.objects.get(key);
    if (lastGood !== undefined && !this.#objects.has(key)) this.#objects.set(key, lastGood);
  }

  #problem(document: ManifestDocument, object: RawObject, path: FieldPath, reason: string): void {
    const { kind, name } = labelOf(object);
    this.#problems.push({
      file: this.#path,
      line: document.lineOf(path),
      kind,
      name,
      field: formatPath(path),
      reason,
    });
  }
}

/** `spec.ports[0].port`; keys that are no plain words are quoted. */
export function formatPath(path: FieldPath): string {
  return path
    .map((step) => {
      if (typeof step === 'number') return `[${step}]`;
      return /^[A-Za-z_][A-Za-z0-9_]*$/.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
    })
    .join('')
    .replace(/^\./, '');
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

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
