import { createLog } from '../log/index.js';
import { FOLDER_SOURCE_DEFAULTS, FolderSource } from './source.js';
import type { Decoder, ManifestProblem } from './types.js';

/** What is wrong with a folder of manifests, and how much of it is not. */
export interface ValidationReport<T> {
  readonly objects: ReadonlyMap<string, T>;
  /** By file and line. */
  readonly problems: readonly ManifestProblem[];
  /** What is worth knowing, though nothing is wrong. */
  readonly notices: readonly ManifestProblem[];
}

/** Reads a folder, or one file, once, as `FolderSource` does at its start. Throws ManifestsError where it cannot be read at all. */
export async function validateManifests<T>(path: string, decode: Decoder<T>): Promise<ValidationReport<T>> {
  const log = createLog({ level: 'silent', component: 'validate' });
  const source = new FolderSource(
    { ...FOLDER_SOURCE_DEFAULTS, folder: path },
    { decode, onBatch: () => {}, log },
  );
  try {
    await source.start();
    const { objects, problems, notices } = source;
    return { objects, problems, notices };
  } finally {
    source.stop();
  }
}
