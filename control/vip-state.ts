import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MeshError, messageOf } from '../mesh/common/errors.js';
import type { Log } from '../mesh/log/index.js';
import { writeFileAtomically } from './ca/index.js';
import { STATUS_VIPS, VipPool, type Vips } from './translate/index.js';

/** VIP_STATE: the file of automatic addresses cannot be used; data.file names it. */
export class VipStateError extends MeshError<'VIP_STATE'> {}

/** A disk that was full is tried again so often. */
const RETRY_MS = 1_000;

/** Automatic addresses of ServiceEntries. */
export interface VipState {
  readonly vips: Vips;
  /**
   * Writes what has changed since. Before agents are told: an address that was given out must not be given to another after a crash. A disk that is
   * full is reported and tried again, and keeps no policy from agents: a restart then finds nearly all addresses again by their names' hashes.
   */
  save(): void;
  /** No more tries. */
  close(): void;
}

/** On Kubernetes the objects' statuses hold them. */
export const STATUS_VIP_STATE: VipState = { vips: STATUS_VIPS, save: () => {}, close: () => {} };

/** Kept in the state folder: lines `<slot> <namespace>/<host>`. Throws VipStateError if the file is there but cannot be used: addresses that clients know would change. */
export function loadVipState(folder: string, log: Log): VipState & { readonly vips: VipPool } {
  const file = join(folder, 'vips');
  const pool = new VipPool(readSlots(file));
  let version = pool.version;
  let retry: NodeJS.Timeout | undefined;
  let lastReason = '';
  const save = (): void => {
    clearTimeout(retry);
    if (pool.version === version) return;
    const lines = [...pool.saved].map(([name, slot]) => `${slot} ${name}\n`);
    try {
      writeFileAtomically(file, lines.join(''), 0o600);
      version = pool.version;
      lastReason = '';
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== lastReason) log.error({ file, reason }, 'automatic addresses cannot be saved');
      lastReason = reason;
      retry = setTimeout(save, RETRY_MS).unref();
    }
  };
  return { vips: pool, save, close: () => clearTimeout(retry) };
}

function readSlots(file: string): [string, number][] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new VipStateError('VIP_STATE', `${file} cannot be read: ${messageOf(error)}`, { file }, error);
  }
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line, index) => {
      const parts = /^(\d{1,5}) (\S+)$/.exec(line);
      if (parts === null)
        throw new VipStateError('VIP_STATE', `${file}:${index + 1} is not '<slot> <namespace>/<host>'`, {
          file,
        });
      return [parts[2]!, Number(parts[1])];
    });
}
