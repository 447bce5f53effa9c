import { messageOf } from '../mesh/common/errors.js';
import type { Log } from '../mesh/log/index.js';
import type { ManifestProblem } from '../mesh/manifests/index.js';
import { writeFileAtomically } from './ca/index.js';

/** What the status file of source `files` says: JSON, for scripts and other programs. */
export interface FilesStatus {
  readonly folder: string;
  /** ISO 8601, of the last change of this file. */
  readonly changedAt: string;
  /** Everything that is not in force as written, by file and line. */
  readonly problems: readonly ManifestProblem[];
  /** What is worth knowing, though nothing is wrong: kinds of a mesh that are not read here, … */
  readonly notices: readonly ManifestProblem[];
}

/** Writes it in one step: a reader sees the old one or the new one. */
export function writeFilesStatus(file: string, status: FilesStatus, log: Log): void {
  try {
    writeFileAtomically(file, `${JSON.stringify(status, null, 2)}\n`, 0o644);
  } catch (error) {
    log.error({ file, reason: messageOf(error) }, 'status file cannot be written');
  }
}
