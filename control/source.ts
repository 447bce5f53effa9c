import { join } from 'node:path';
import {
  type KindStatus,
  KUBERNETES_SOURCE_DEFAULTS,
  KubernetesSource,
  watchedKindsOf,
} from '../mesh/kube/index.js';
import type { Log } from '../mesh/log/index.js';
import {
  FOLDER_SOURCE_DEFAULTS,
  FolderSource,
  type ManifestProblem,
  type SourceBatch,
} from '../mesh/manifests/index.js';
import type { Cluster } from './cluster.js';
import { writeFilesStatus } from './files-status.js';
import { decodeObject, type MeshObject, OBJECT_KINDS } from './model/index.js';
import type { ControllerOptions } from './options.js';
import type { Writeback } from './writeback/index.js';

/** Where the mesh's objects come from. */
export interface ObjectSource {
  readonly problems: readonly ManifestProblem[];
  /** What is worth knowing, though nothing is wrong. */
  readonly notices: readonly ManifestProblem[];
  /** By source, or kind of it: since it was last seen whole, milliseconds. */
  readonly ages: ReadonlyMap<string, number>;
  /** How the watches are doing; none where there are none. */
  readonly watches: readonly KindStatus[];
  /** What is awaited before `start` resolves. */
  readonly pending: readonly string[];
  /** Resolves when the whole state has been handed on. */
  start(): Promise<void>;
  stop(): void;
}

export interface ObjectSourceDeps {
  readonly onBatch: (batch: SourceBatch<MeshObject>) => void;
  /** Null: source `files`. */
  readonly cluster: Cluster | null;
  /** Sees what the API server has beside what the mesh uses; null: source `files`. */
  readonly writeback: Pick<Writeback, 'observe' | 'onProblems'> | null;
  readonly log: Log;
}

/** The source that the options name, not started. */
export function openSource(options: ControllerOptions, deps: ObjectSourceDeps): ObjectSource {
  return deps.cluster === null ? openFolder(options, deps) : openKubernetes(deps.cluster, deps);
}

function openFolder(options: ControllerOptions, { onBatch, log }: ObjectSourceDeps): ObjectSource {
  const statusFile = options.statusFile || join(options.state, 'files-status.json');
  const source: FolderSource<MeshObject> = new FolderSource(
    { ...FOLDER_SOURCE_DEFAULTS, folder: options.manifests },
    {
      decode: decodeObject,
      onBatch,
      onProblems: (problems, notices) => {
        const changedAt = new Date().toISOString();
        writeFilesStatus(statusFile, { folder: source.folder, changedAt, problems, notices }, log);
      },
      log: log.child({ room: 'files' }),
    },
  );
  return {
    get problems() {
      return source.problems;
    },
    get notices() {
      return source.notices;
    },
    get ages() {
      return new Map([['files', source.ageMs]]);
    },
    watches: [],
    pending: [],
    start: () => source.start(),
    stop: () => source.stop(),
  };
}

function openKubernetes(
  { client, origin }: Cluster,
  { onBatch, writeback, log }: ObjectSourceDeps,
): ObjectSource {
  const source = new KubernetesSource<MeshObject>(
    { ...KUBERNETES_SOURCE_DEFAULTS, kinds: watchedKindsOf(OBJECT_KINDS) },
    {
      client,
      decode: decodeObject,
      observe: (key, object) => writeback?.observe(key, object),
      onProblems: (key, problems) => writeback?.onProblems(key, problems),
      onBatch,
      log: log.child({ room: 'kube' }),
    },
  );
  log.info({ cluster: origin }, 'objects come from the API server');
  return {
    get problems() {
      return source.problems;
    },
    get notices() {
      return source.notices;
    },
    get ages() {
      return source.ages;
    },
    get watches() {
      return source.status;
    },
    get pending() {
      return source.pending;
    },
    start: () => source.start(),
    stop: () => source.stop(),
  };
}
