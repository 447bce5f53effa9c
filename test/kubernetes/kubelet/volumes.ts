import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { ApiClient } from '../api.js';
import { fieldOf, missing, type PodPlace, type ReadData, resourceOf } from './environment.js';
import type { DownwardItem, FileSource, KubeletConfig, Pod, Volume } from './types.js';
import { PodError } from './types.js';

/** Paths that pods share with the machine itself; every other host path is a folder of the node's own. */
const OF_THE_MACHINE = /^\/(?:proc|dev|lib|usr|etc\/os-release|sys|run\/netns|var\/run\/netns)(?:\/|$)/;

interface File {
  readonly data: string | Buffer;
  readonly mode: number;
}

interface Token {
  readonly token: string;
  /** Milliseconds since 1970. */
  readonly renewAt: number;
}

/** The volumes of one pod, below a folder of their own. */
export class PodVolumes {
  readonly folder: string;
  #config: KubeletConfig;
  #api: ApiClient;
  #read: ReadData;
  #tokens: Map<string, Token>;

  constructor(
    options: { readonly folder: string; readonly config: KubeletConfig },
    deps: { readonly api: ApiClient; readonly read: ReadData },
  ) {
    this.folder = options.folder;
    this.#config = options.config;
    this.#api = deps.api;
    this.#read = deps.read;
    this.#tokens = new Map();
  }

  /** Where a volume is on this machine. */
  pathOf(volume: Volume): string {
    return volume.hostPath ? hostPath(this.#config, volume.hostPath.path) : join(this.folder, volume.name);
  }

  /** Makes or refreshes every volume. Throws a PodError naming what is missing. */
  async write(pod: Pod, place: PodPlace): Promise<void> {
    for (const volume of pod.spec.volumes ?? []) {
      const path = this.pathOf(volume);
      if (volume.hostPath) makeHostPath(path, volume.hostPath.type ?? '');
      else mkdirSync(path, { recursive: true, mode: 0o777 });
      if (volume.emptyDir) {
        chmodSync(path, 0o777);
        if (pod.spec.securityContext?.fsGroup !== undefined)
          chownSync(path, -1, pod.spec.securityContext.fsGroup);
      }
      const files = await this.#filesOf(pod, volume, place);
      if (files !== null) writeAtomically(path, files, pod.spec.securityContext?.fsGroup);
      else if (!volume.emptyDir && !volume.hostPath) {
        throw new PodError(
          'FailedMount',
          `volume ${volume.name}: the lab knows emptyDir, hostPath, secret, configMap, downwardAPI, projected`,
        );
      }
    }
  }

  async #filesOf(pod: Pod, volume: Volume, place: PodPlace): Promise<ReadonlyMap<string, File> | null> {
    const mode =
      (volume.secret ?? volume.configMap ?? volume.downwardAPI ?? volume.projected)?.defaultMode ?? 0o644;
    if (volume.secret) return await this.#data('secrets', volume.secret.secretName, volume.secret, mode);
    if (volume.configMap)
      return await this.#data('configmaps', volume.configMap.name, volume.configMap, mode);
    if (volume.downwardAPI) return downward(pod, volume.downwardAPI.items ?? [], mode, place);
    if (!volume.projected) return null;
    const files = new Map<string, File>();
    for (const { secret, configMap, downwardAPI, serviceAccountToken: token } of volume.projected.sources ??
      []) {
      const found = secret
        ? await this.#data('secrets', secret.name, secret, mode)
        : configMap
          ? await this.#data('configmaps', configMap.name, configMap, mode)
          : downward(pod, downwardAPI?.items ?? [], mode, place);
      for (const [name, file] of found) files.set(name, file);
      if (token) {
        const data = await this.#token(pod, token.audience, token.expirationSeconds ?? 3600);
        files.set(token.path, { data, mode });
      }
    }
    return files;
  }

  async #data(
    kind: 'configmaps' | 'secrets',
    name: string,
    { items, optional }: FileSource,
    mode: number,
  ): Promise<ReadonlyMap<string, File>> {
    const data = await this.#read(kind, name);
    if (data === null) {
      if (optional) return new Map();
      throw new PodError('FailedMount', missing(kind, name).message);
    }
    if (items === undefined) return new Map([...data].map(([key, value]) => [key, { data: value, mode }]));
    const files = new Map<string, File>();
    for (const item of items) {
      const value = data.get(item.key);
      if (value !== undefined) files.set(item.path, { data: value, mode: item.mode ?? mode });
      else if (!optional)
        throw new PodError('FailedMount', missing(kind, `${name}, key ${item.key}`).message);
    }
    return files;
  }

  /** Renewed after four fifths of its life, as kubelet does it. */
  async #token(pod: Pod, audience: string | undefined, seconds: number): Promise<string> {
    const key = `${audience ?? ''} ${seconds}`;
    const now = Date.now();
    const held = this.#tokens.get(key);
    if (held !== undefined && now < held.renewAt) return held.token;
    const { namespace, name, uid } = pod.metadata;
    const account = pod.spec.serviceAccountName ?? 'default';
    const answer = await this.#api.post<{ status: { token: string } }>(
      `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`,
      {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: {
          ...(audience === undefined ? {} : { audiences: [audience] }),
          expirationSeconds: seconds,
          boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
        },
      },
    );
    this.#tokens.set(key, { token: answer.status.token, renewAt: now + seconds * 800 });
    return answer.status.token;
  }
}

/** A host path as this node has it: all nodes share one machine. */
export function hostPath(config: KubeletConfig, path: string): string {
  const clean = path.replace(/\/+$/, '') || '/';
  if (clean === '/sys/fs/bpf') return config.bpffsDir;
  if (clean.startsWith('/sys/fs/cgroup')) return join(config.cgroup, clean.slice('/sys/fs/cgroup'.length));
  if (OF_THE_MACHINE.test(clean)) return clean;
  return join(config.stateDir, 'host', clean.replace(/^\/var\/run(?=\/|$)/, '/run'));
}

function makeHostPath(path: string, type: string): void {
  if (type.endsWith('OrCreate') && type.startsWith('File')) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '', { flag: 'a' });
    return;
  }
  // A node of the lab has none of the folders a real one has; whoever asks for one gets it.
  if (type === '' || type.startsWith('Directory')) mkdirSync(path, { recursive: true });
}

function downward(
  pod: Pod,
  items: readonly DownwardItem[],
  mode: number,
  place: PodPlace,
): ReadonlyMap<string, File> {
  return new Map(
    items.map((item) => [
      item.path,
      {
        data: item.fieldRef
          ? fieldOf(pod, item.fieldRef.fieldPath, place)
          : resourceOf(pod, null, item.resourceFieldRef!),
        mode: item.mode ?? mode,
      },
    ]),
  );
}

/** As kubelet's AtomicWriter: all files change at once, by the link `..data`. */
function writeAtomically(folder: string, files: ReadonlyMap<string, File>, group: number | undefined): void {
  const before = currentOf(folder);
  if (before !== null && isSame(join(folder, before), files)) return;
  const name = `..${process.hrtime.bigint()}`;
  for (const [path, { data, mode }] of files) {
    const file = join(folder, name, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, data, { mode });
    chmodSync(file, group === undefined ? mode : mode | 0o440);
    if (group !== undefined) chownSync(file, -1, group);
  }
  mkdirSync(join(folder, name), { recursive: true });
  symlinkSync(name, join(folder, '..data_tmp'));
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
  const tops = new Set([...files.keys()].map((path) => path.split('/')[0]!));
  for (const entry of readdirSync(folder)) {
    if (!entry.startsWith('..') && !tops.delete(entry)) rmSync(join(folder, entry));
  }
  for (const top of tops) symlinkSync(join('..data', top), join(folder, top));
  if (before !== null) rmSync(join(folder, before), { recursive: true });
}

function isSame(folder: string, files: ReadonlyMap<string, File>): boolean {
  const there = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  if (there.length !== files.size) return false;
  return [...files].every(([path, { data }]) => {
    const file = join(folder, path);
    return existsSync(file) && readFileSync(file).equals(Buffer.from(data as string));
  });
}

function currentOf(folder: string): string | null {
  try {
    return readlinkSync(join(folder, '..data'));
  } catch {
    return null;
  }
}
