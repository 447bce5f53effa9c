import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import { FilesWatch } from '../../mesh/common/files-watch.js';
import { derToPem, pemToDer } from '../../mesh/identity/index.js';
import type { Log } from '../../mesh/log/index.js';
import {
  type Authority,
  anchorsOf,
  type CaMaterial,
  checkSigner,
  checkStep,
  distinctPem,
  isIssuedBy,
  LiveAuthority,
} from './authority.js';
import { CaError } from './errors.js';
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

/** Each under its two names; the first that is there counts. */
const NAMES = {
  certificate: ['ca-cert.pem', 'tls.crt'],
  key: ['ca-key.pem', 'tls.key'],
  roots: ['root-cert.pem', 'ca.crt'],
} as const;
/** Optional: the way from the signing certificate to a root. */
const CHAIN = 'cert-chain.pem';
const MAX_INTERMEDIATES = 6;

/**
 * A CA given as files, watched. A set that is not whole, or cannot sign, or would leave agents without a common root is reported, and the last good
 * one stays in force: a new root is added to `root-cert.pem` first, signs next, and the old one is taken out last.
 */
export class FilesAuthority implements Authority {
  readonly #options: FilesAuthorityOptions;
  readonly #deps: FilesAuthorityDeps;
  readonly #live: LiveAuthority;
  readonly #watch: FilesWatch;

  /** Throws CaError where the set cannot be used. */
  constructor(options: FilesAuthorityOptions, deps: FilesAuthorityDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#live = new LiveAuthority(this.#read(), deps.log);
    const files = [...Object.values(NAMES).flat(), CHAIN].map((name) => join(options.folder, name));
    this.#watch = new FilesWatch({ files, intervalMs: options.intervalMs }, () => this.#changed());
  }

  get current(): CaMaterial {
    return this.#live.current;
  }

  subscribe(listener: () => void): () => void {
    return this.#live.subscribe(listener);
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
      if (this.#live.replace(material))
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
      const given = certificatesIn(this.#file(NAMES.certificate));
      const privateKey = readKey(this.#file(NAMES.key));
      const roots = certificatesIn(this.#file(NAMES.roots));
      checkSigner(given[0]!, privateKey, this.#deps.nowMs());
      const helpers = [...given.slice(1), ...certificatesIn(this.#optional(CHAIN))];
      const intermediates = pathOf(given[0]!, helpers, roots).map((der) => derToPem(der, 'CERTIFICATE'));
      const material = { privateKey, certificate: given[0]!, intermediates, roots: distinctPem(roots) };
      // The signing one first: agents see a change, and renew, also where the same roots are trusted.
      return { ...material, roots: distinctPem([...anchorsOf(material).map(({ raw }) => raw), ...roots]) };
    } catch (error) {
      if (error instanceof CaError) throw error;
      throw new CaError('CA_STATE', `CA files in ${folder}: ${messageOf(error)}`, { file: folder }, error);
    }
  }

  #file(names: readonly string[]): { file: string; text: string } {
    for (const name of names) {
      const found = this.#optional(name);
      if (found !== null) return found;
    }
    throw new Error(`${names.join(' (or ')}) is missing`);
  }

  #optional(name: string): { file: string; text: string } | null {
    const file = join(this.#options.folder, name);
    try {
      return { file, text: readFileSync(file, 'utf8') };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  }
}

function certificatesIn(found: { file: string; text: string } | null): Buffer[] {
  if (found === null) return [];
  try {
    const certificates = pemToDer(found.text, 'CERTIFICATE');
    for (const der of certificates) new X509Certificate(der);
    return certificates;
  } catch (error) {
    throw new CaError('CA_STATE', `${found.file}: ${messageOf(error)}`, { file: found.file }, error);
  }
}

function readKey({ file, text }: { file: string; text: string }): KeyObject {
  checkSecretMode(file);
  try {
    return createPrivateKey(text);
  } catch (error) {
    throw new CaError('CA_STATE', `${file}: ${messageOf(error)}`, { file }, error);
  }
}

/** From the signing certificate to just below a root; empty where it is a root itself. `helpers` may hold more than the way, also roots. */
function pathOf(signer: Buffer, helpers: readonly Buffer[], roots: readonly Buffer[]): Buffer[] {
  const anchors = roots.map((der) => new X509Certificate(der));
  if (anchors.some(({ raw }) => raw.equals(signer))) return [];
  const candidates = helpers.map((der) => new X509Certificate(der));
  const path = [new X509Certificate(signer)];
  while (!anchors.some((anchor) => isIssuedBy(path.at(-1)!, anchor))) {
    const next = candidates.find(
      (one) => isIssuedBy(path.at(-1)!, one) && !path.some(({ raw }) => raw.equals(one.raw)),
    );
    if (next === undefined || path.length === MAX_INTERMEDIATES)
      throw new Error('the signing certificate leads to no root of the trust bundle');
    path.push(next);
  }
  return path.map(({ raw }) => raw);
}
