/**
 * Where things are pinned on bpffs (names there have no dots):
 *   <bpffsDir>/abi-<version>/maps/<map>, links/<hook>, pods/<uid>/{listeners,link}
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, statfsSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import { abiVersion, type Bpf } from '../../native/bpf/index.js';
import { CaptureError } from './errors.js';

const bpffsMagic = 0xcafe4a11;
const standardMount = '/sys/fs/bpf';

export class Pins {
  readonly #root: string;

  private constructor(bpffsDir: string) {
    this.#root = join(bpffsDir, `abi-${abiVersion}`);
  }

  /** Makes the folders, and a bpffs below them where there is none. Throws BPFFS_UNUSABLE, and ABI_MISMATCH where another version is pinned. */
  static open(bpffsDir: string, bpf: Bpf): Pins {
    try {
      mountBpffs(bpffsDir, bpf);
    } catch (error) {
      const reason = `nothing can be pinned below ${bpffsDir}: ${messageOf(error)}`;
      throw new CaptureError('BPFFS_UNUSABLE', reason, { bpffsDir }, error);
    }
    const pins = new Pins(bpffsDir);
    const other = readdirSync(bpffsDir).find(
      (name) => /^abi-/.test(name) && join(bpffsDir, name) !== pins.#root,
    );
    if (other !== undefined) {
      const reason = `${bpffsDir} holds ${other}, we are abi-${abiVersion}: drain the node, remove it (npm run clean), then start this agent`;
      throw new CaptureError('ABI_MISMATCH', reason, { bpffsDir, found: other });
    }
    for (const folder of ['maps', 'links', 'pods'])
      mkdirSync(join(pins.#root, folder), { recursive: true, mode: 0o700 });
    return pins;
  }

  map(name: string): string {
    return join(this.#root, 'maps', name);
  }

  link(hook: string): string {
    return join(this.#root, 'links', hook);
  }

  links(): string[] {
    return readdirSync(join(this.#root, 'links'));
  }

  /** Creates the pod's folder if `create`. */
  pod(uid: string, what: 'listeners' | 'link', create = false): string {
    const folder = join(this.#root, 'pods', uid);
    if (create) mkdirSync(folder, { recursive: true, mode: 0o700 });
    return join(folder, what);
  }

  pods(): string[] {
    return readdirSync(join(this.#root, 'pods'));
  }

  removePod(uid: string): void {
    removeTree(join(this.#root, 'pods', uid));
  }
}

/** Unlinks everything below, then the folder; what is not there is no error. A pinned object ends with its last descriptor. */
export function removeTree(path: string): void {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) removeTree(child);
    else unlinkSync(child);
  }
  rmdirSync(path);
}

export function isOnBpffs(path: string): boolean {
  return existsSync(path) && statfsSync(path).type === bpffsMagic;
}

/** At /sys/fs/bpf for what is below it, as everybody has it; else at the folder itself. */
function mountBpffs(bpffsDir: string, bpf: Bpf): void {
  let existing = bpffsDir;
  while (!existsSync(existing)) existing = dirname(existing);
  if (!isOnBpffs(existing))
    bpf.ensureBpffs(bpffsDir.startsWith(`${standardMount}/`) ? standardMount : bpffsDir);
  mkdirSync(bpffsDir, { recursive: true, mode: 0o700 });
}
