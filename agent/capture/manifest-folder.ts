/**
 * The manifest folder as it was last read: which objects are in force, file by file. An object that became invalid keeps
 * its last good version; one that left its file is gone. Nothing here watches: see files-pod-source.ts.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { messageOf } from '../../mesh/common/errors.js';
import {
  isEnrolled,
  type Manifest,
  type ManifestProblem,
  type NamespaceManifest,
  readManifest,
} from './manifest.js';
import { CaptureError, type LocalPod } from './types.js';

interface FileState {
  /** Changes whenever the content may have. */
  readonly signature: string;
  readonly manifests: ReadonlyMap<string, Manifest>;
  /** Keys that are invalid now and were never good. */
  readonly invalidKeys: ReadonlySet<string>;
  readonly problems: readonly ManifestProblem[];
}

export interface FolderView {
  readonly pods: readonly LocalPod[];
  readonly problems: readonly ManifestProblem[];
  /** Every directory read: path to inode. */
  readonly directories: ReadonlyMap<string, number>;
}

const maxFileBytes = 16 * 1024 * 1024;

export class ManifestFolder {
  readonly #root: string;
  readonly #nodeName: string;
  readonly #excludedNamespaces: ReadonlySet<string>;
  #files = new Map<string, FileState>();

  constructor(options: { folder: string; nodeName: string; excludedNamespaces: readonly string[] }) {
    this.#root = options.folder;
    this.#nodeName = options.nodeName;
    this.#excludedNamespaces = new Set(options.excludedNamespaces);
  }

  /** Reads what changed since the last time. Throws FOLDER_UNREADABLE where the root cannot be listed; the last view then still holds. */
  async read(): Promise<FolderView> {
    const directories = new Map<string, number>();
    const paths: string[] = [];
    const unreadable: string[] = [];
    await this.#list(this.#root, directories, paths, unreadable);
    const next = new Map<string, FileState>();
    for (const path of paths.sort()) {
      const state = await this.#readFile(path);
      if (state !== null) next.set(path, state);
    }
    for (const [path, state] of this.#files) {
      if (!next.has(path) && unreadable.some((directory) => path.startsWith(`${directory}/`)))
        next.set(path, state);
    }
    this.#files = next;
    return { ...this.#combine(), directories };
  }

  async #list(
    directory: string,
    directories: Map<string, number>,
    files: string[],
    unreadable: string[],
  ): Promise<void> {
    let entries: string[];
    try {
      directories.set(directory, (await stat(directory)).ino);
      entries = await readdir(directory);
    } catch (error) {
      if (directory === this.#root) {
        const reason = `the manifest folder ${directory} cannot be read: ${messageOf(error)}`;
        throw new CaptureError('FOLDER_UNREADABLE', reason, { folder: directory }, error);
      }
      directories.delete(directory);
      unreadable.push(directory);
      return;
    }
    for (const entry of entries) {
      if (entry.startsWith('.')) continue;
      const path = join(directory, entry);
      const info = await stat(path).catch(() => null);
      if (info?.isDirectory()) await this.#list(path, directories, files, unreadable);
      else if (info?.isFile() && /\.(ya?ml|json)$/.test(entry)) files.push(path);
    }
  }

  /** Null: gone meanwhile. */
  async #readFile(path: string): Promise<FileState | null> {
    const previous = this.#files.get(path);
    try {
      const before = await signatureOf(path);
      if (before.text === previous?.signature) return previous;
      if (before.bytes > maxFileBytes) throw new Error(`is larger than ${maxFileBytes} bytes`);
      const text = await readFile(path, 'utf8');
      return this.#parse(path, before.text, text, previous);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      const problem = { file: path, kind: '', name: '', field: '', reason: messageOf(error) };
      return {
        signature: '',
        manifests: previous?.manifests ?? new Map(),
        invalidKeys: previous?.invalidKeys ?? new Set(),
        problems: [problem],
      };
    }
  }

  #parse(file: string, signature: string, text: string, previous: FileState | undefined): FileState {
    const manifests = new Map<string, Manifest>();
    const invalidKeys = new Set<string>();
    const problems: ManifestProblem[] = [];
    const seen = new Set<string>();
    let anonymousProblem = false;
    for (const value of documentsOf(text, (reason) => {
      anonymousProblem = true;
      problems.push({ file, kind: '', name: '', field: '', reason });
    })) {
      const { key, manifest, problem } = readManifest(value, this.#nodeName);
      if (problem !== null) {
        problems.push({ file, ...problem });
        if (key === null) anonymousProblem = true;
      }
      if (key === null) continue;
      if (seen.has(key)) {
        problems.push({
          file,
          kind: key.split('/')[0]!,
          name: nameOf(key),
          field: 'metadata.name',
          reason: 'is in this file twice',
        });
        continue;
      }
      seen.add(key);
      const inForce = problem === null ? manifest : previous?.manifests.get(key);
      if (inForce) manifests.set(key, inForce);
      else if (problem !== null) invalidKeys.add(key);
    }
    // A document that does not even say what it is may be any of those missing: they stay.
    if (anonymousProblem) {
      for (const [key, manifest] of previous?.manifests ?? [])
        if (!seen.has(key)) manifests.set(key, manifest);
    }
    return { signature, manifests, invalidKeys, problems };
  }

  #combine(): { pods: LocalPod[]; problems: ManifestProblem[] } {
    const problems: ManifestProblem[] = [];
    const inForce = new Map<string, Manifest>();
    const invalid = new Set<string>();
    for (const [file, state] of this.#files) {
      problems.push(...state.problems);
      for (const key of state.invalidKeys) invalid.add(key);
      for (const [key, manifest] of state.manifests) {
        if (!inForce.has(key)) inForce.set(key, manifest);
        else
          problems.push({
            file,
            kind: manifest.kind,
            name: nameOf(key),
            field: 'metadata.name',
            reason: 'is in another file too, which is used',
          });
      }
    }
    const pods: LocalPod[] = [];
    for (const manifest of inForce.values()) {
      const pod = manifest.kind === 'Pod' ? this.#localPod(manifest, inForce, invalid) : null;
      if (pod !== null) pods.push(pod);
    }
    return { pods: pods.sort((a, b) => (a.uid < b.uid ? -1 : 1)), problems };
  }

  /** Null: held back (unknown to the kernel, so refused), because its namespace's label cannot be read. */
  #localPod(
    pod: Extract<Manifest, { kind: 'Pod' }>,
    inForce: ReadonlyMap<string, Manifest>,
    invalid: ReadonlySet<string>,
  ): LocalPod | null {
    const namespaceKey = `Namespace/${pod.namespace}`;
    const namespace = inForce.get(namespaceKey) as NamespaceManifest | undefined;
    if (namespace === undefined && pod.mode === null && invalid.has(namespaceKey)) return null;
    const enrolled = isEnrolled(pod, namespace?.mode ?? null) && !this.#excludedNamespaces.has(pod.namespace);
    const { uid, name, serviceAccount, addresses, hostNetwork } = pod;
    return { uid, name, namespace: pod.namespace, serviceAccount, addresses, hostNetwork, enrolled };
  }
}

/** All documents of a file; those of a `List` one by one. */
function* documentsOf(text: string, onError: (reason: string) => void): Generator<unknown> {
  for (const document of parseAllDocuments(text)) {
    if (!('errors' in document)) continue;
    if (document.errors.length > 0) {
      onError(document.errors[0]!.message.split('\n')[0]!);
      continue;
    }
    let value: unknown;
    try {
      value = document.toJS();
    } catch (error) {
      onError(messageOf(error)); // an alias bomb
      continue;
    }
    const items = isList(value) ? value.items : null;
    if (items === null) yield value;
    else yield* items;
  }
}

function isList(value: unknown): value is { items: unknown[] } {
  if (typeof value !== 'object' || value === null) return false;
  const { kind, items } = value as { kind?: unknown; items?: unknown };
  return typeof kind === 'string' && kind.endsWith('List') && Array.isArray(items);
}

function nameOf(key: string): string {
  return key.slice(key.indexOf('/') + 1);
}

async function signatureOf(path: string): Promise<{ text: string; bytes: number }> {
  const info = await stat(path, { bigint: true });
  return {
    text: `${info.dev}:${info.ino}:${info.size}:${info.mtimeNs}:${info.ctimeNs}`,
    bytes: Number(info.size),
  };
}
