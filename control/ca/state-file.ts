import {
  closeSync,
  fchmodSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import { worldAccessTo } from '../../mesh/common/secret-mode.js';
import { CaError } from './errors.js';

/** Text of a secret file, or null where there is none. Throws CaError if others may read it or it cannot be read. */
export function readSecret(file: string): string | null {
  try {
    const { mode: bits, uid } = statSync(file);
    const mode = bits & 0o777;
    if (uid !== process.geteuid!() && uid !== 0)
      throw new CaError('CA_STATE', `${file} belongs to user ${uid}, not to us`, { file });
    if ((mode & 0o077) !== 0)
      throw new CaError(
        'CA_STATE',
        `${file} may be read by others (mode ${mode.toString(8)}); chmod 600 it`,
        { file },
      );
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof CaError) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new CaError('CA_STATE', `${file} cannot be read: ${messageOf(error)}`, { file }, error);
  }
}

/** Throws CaError where everybody may read or write the file. */
export function checkSecretMode(file: string): void {
  const fault = worldAccessTo(file);
  if (fault !== null) throw new CaError('CA_STATE', `${file} ${fault}`, { file });
}

/** Makes a secret file (mode 600) unless it is there already, also if several processes try at once. Returns what it holds now. */
export function createSecret(file: string, text: string): string {
  const temporary = writeTemporary(file, text, 0o600);
  try {
    linkSync(temporary, file); // unlike rename never replaces
    syncFolderOf(file);
    return text;
  } catch (error) {
    const existing = (error as NodeJS.ErrnoException).code === 'EEXIST' ? readSecret(file) : null;
    if (existing !== null) return existing;
    throw new CaError('CA_STATE', `${file} cannot be written: ${messageOf(error)}`, { file }, error);
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** Writes a file in one step: readers see the old one or the new one, also after a crash. The folder is made if need be. */
export function writeFileAtomically(file: string, text: string, mode: number): void {
  const temporary = writeTemporary(file, text, mode);
  try {
    renameSync(temporary, file);
    syncFolderOf(file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new CaError('CA_STATE', `${file} cannot be written: ${messageOf(error)}`, { file }, error);
  }
}

function writeTemporary(file: string, text: string, mode: number): string {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    rmSync(temporary, { force: true });
    const fd = openSync(temporary, 'wx', mode);
    try {
      fchmodSync(fd, mode); // whatever the umask
      writeFileSync(fd, text); // unlike writeSync never writes a part only
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    return temporary;
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new CaError('CA_STATE', `${file} cannot be written: ${messageOf(error)}`, { file }, error);
  }
}

/** A name, too, is on disk only then. */
export function syncFolderOf(file: string): void {
  const fd = openSync(dirname(file), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
