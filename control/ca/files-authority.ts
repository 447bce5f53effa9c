import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import { FilesWatch } from '../../mesh/common/files-watch.js';
import type { Log } from '../../mesh/log/index.js';
import { type CaMaterial, checkStep, KeyAuthority } from './authority.js';
import { CaError } from './errors.js';
import { MATERIAL_NAMES, type MaterialPart, readMaterial } from './material.js';
import { checkSecretMode } from './state-file.js';

export interface FilesAuthorityOptions {
  /** Folder with the files of Istio's `cacerts`, or cert-manager's names (mesh-apis.md 7). */
  readonly folder: string;
  /** How often they are looked at. */
  readonly intervalMs: number;
}

export interface FilesAuthorityDeps {
  readonly log: Log;
  readonly nowMs: () => number;
}

/**
 * A CA given as files, watched. A set that is not whole, or cannot sign, or would leave agents without a common root is reported, and the last good
 * one stays in force: a new root is added to `root-cert.pem` first, signs next, and the old one is taken out last.
 */
export class FilesAuthority extends KeyAuthority {
  readonly #options: FilesAuthorityOptions;
  readonly #deps: FilesAuthorityDeps;
  readonly #watch: FilesWatch;

  /** Throws CaError where the set cannot be used. */
  constructor(options: FilesAuthorityOptions, deps: FilesAuthorityDeps) {
    super(deps.log);
    this.#options = options;
    this.#deps = deps;
    this.replace(this.#read());
    const files = Object.values(MATERIAL_NAMES)
      .flat()
      .map((name) => join(options.folder, name));
    this.#watch = new FilesWatch({ files, intervalMs: options.intervalMs }, () => this.#changed());
  }

  /** Looks now. */
  check(): void {
    this.#watch.check();
  }

  close(): void {
    this.#watch.close();
  }

  #changed(): void {
    try {
      const material = this.#read();
      checkStep(this.current, material);
      if (this.replace(material))
        this.#deps.log.info({ roots: material.roots.length }, 'CA files have changed and are in force');
    } catch (error) {
      const { folder } = this.#options;
      this.#deps.log.error(
        { folder, reason: messageOf(error) },
        'CA files cannot be used; the last good ones stay in force',
      );
    }
  }

  #read(): CaMaterial {
    const { folder } = this.#options;
    try {
      return readMaterial((name) => partOf(join(folder, name)), this.#deps.nowMs());
    } catch (error) {
      if (error instanceof CaError) throw error;
      throw new CaError('CA_STATE', `CA files in ${folder}: ${messageOf(error)}`, { file: folder }, error);
    }
  }
}

const KEY_NAMES: readonly string[] = MATERIAL_NAMES.key;

function partOf(place: string): MaterialPart | null {
  try {
    const text = readFileSync(place, 'utf8');
    if (KEY_NAMES.some((name) => place.endsWith(`/${name}`))) checkSecretMode(place);
    return { place, text };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
