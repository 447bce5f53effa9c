import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import { pemToDer, readCertificate } from '../../mesh/identity/index.js';
import type { Log } from '../../mesh/log/index.js';
import { type CaMaterial, checkStep, distinctPem, KeyAuthority } from './authority.js';
import { CaError } from './errors.js';
import { loadOrCreateRoot, type RootCa, tryLoadRoot } from './root.js';
import { syncFolderOf, writeFileAtomically } from './state-file.js';

export interface StateAuthorityOptions {
  readonly stateDir: string;
  readonly trustDomain: string;
  /** For so long a new root is trusted before it signs, and the old one after it has ceased to: best the lifetime of leaves, as then all that an agent holds was given out meanwhile. */
  readonly overlapMs: number;
  /** How often the folder is looked at. */
  readonly intervalMs: number;
}

export interface StateAuthorityDeps {
  readonly log: Log;
  readonly nowMs: () => number;
}

/** Signs. */
const ROOT = 'root-ca.pem';
/** Is trusted, and will sign. */
const NEXT = 'next-root-ca.pem';
/** Have signed, and are still trusted; certificates only. */
const PREVIOUS = 'previous-roots.pem';
/** Since when; see `Progress`. */
const PROGRESS = 'root-rotation.json';
/** What is only there where a root has been; the last is the bundle for agents (control/authority.ts). */
const LEFT_BY_A_ROOT = [NEXT, PREVIOUS, PROGRESS, 'root-cert.pem'];
/** A root is replaced when this part of its life is left (istiod: mesh-apis.md 7). */
const LAST_PART = 0.2;

/** Unix milliseconds; null: not so. */
interface Progress {
  /** The next root has been in the bundle since. */
  readonly announcedAtMs: number | null;
  /** The present root has signed since; the previous ones go `overlapMs` later. */
  readonly promotedAtMs: number | null;
}

const NO_PROGRESS: Progress = { announcedAtMs: null, promotedAtMs: null };

/** Makes the root that a running controller will go over to: announced at once, signing after the overlap. Throws CaError; false: one is there already. */
export function beginRootRotation(stateDir: string, trustDomain: string): boolean {
  const file = join(stateDir, NEXT);
  if (tryLoadRoot(file, Date.now()) !== null) return false;
  loadOrCreateRoot(file, trustDomain);
  return true;
}

/** A new root in place of one that was lost would cut every agent off, without a word. Throws CaError. */
function refuseLostRoot(stateDir: string): void {
  const left = LEFT_BY_A_ROOT.filter((name) => existsSync(join(stateDir, name)));
  if (left.length === 0 || existsSync(join(stateDir, ROOT))) return;
  throw new CaError(
    'CA_STATE',
    `${join(stateDir, ROOT)} is missing, and this mesh had a root (${left.join(', ')}): put it back, or remove these files, too, to begin with a new root, which every agent must then be given`,
    { file: join(stateDir, ROOT), left },
  );
}

/**
 * A CA of the controller's own: a root in the state folder, made at the first start. One root follows another in three steps, each persisted
 * before it is told: trusted (`next-root-ca.pem`), signing, and the old one trusted no more. A step that cannot be read keeps what was good.
 */
export class StateAuthority extends KeyAuthority {
  readonly #options: StateAuthorityOptions;
  readonly #deps: StateAuthorityDeps;
  readonly #timer: NodeJS.Timeout;
  #lastError = '';

  /** Throws CaError where what is there cannot be used. */
  constructor(options: StateAuthorityOptions, deps: StateAuthorityDeps) {
    super(deps.log);
    this.#options = options;
    this.#deps = deps;
    refuseLostRoot(options.stateDir);
    loadOrCreateRoot(this.#path(ROOT), options.trustDomain, deps.nowMs());
    this.replace(this.#advance());
    this.#timer = setInterval(() => this.check(), options.intervalMs).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Looks now whether a rotation has begun, or its next step is due. */
  check(): void {
    try {
      const material = this.#advance();
      checkStep(this.current, material);
      this.#lastError = '';
      if (this.replace(material))
        this.#deps.log.info(
          { roots: material.roots.length },
          'the trust bundle or the signing root has changed',
        );
    } catch (error) {
      const message = messageOf(error);
      if (message !== this.#lastError)
        this.#deps.log.error({ reason: message }, 'root rotation stands still; what was good stays in force');
      this.#lastError = message;
    }
  }

  #advance(): CaMaterial {
    const { stateDir, trustDomain, overlapMs } = this.#options;
    const nowMs = this.#deps.nowMs();
    let root = this.#root(nowMs);
    if (isNearItsEnd(root, nowMs)) beginRootRotation(stateDir, trustDomain);
    let next = tryLoadRoot(this.#path(NEXT), nowMs);
    let progress = this.#readProgress();
    if (next !== null && progress.announcedAtMs === null) {
      progress = { ...progress, announcedAtMs: nowMs };
      this.#writeProgress(progress);
    }
    if (next !== null && isOver(progress.announcedAtMs, overlapMs, nowMs)) {
      this.#promote(root);
      root = next;
      next = null;
      progress = this.#readProgress();
    }
    if (isOver(progress.promotedAtMs, overlapMs, nowMs)) this.#retirePrevious(progress);
    const trusted = [root, ...(next === null ? [] : [next])].map(({ certificate }) => certificate);
    return {
      privateKey: root.privateKey,
      certificate: root.certificate,
      intermediates: [],
      roots: distinctPem([...trusted, ...this.#previous()]),
    };
  }

  /** While the controller runs, a root that is gone is not replaced by another, which would cut off everybody at once. */
  #root(nowMs: number): RootCa {
    const file = this.#path(ROOT);
    const root = tryLoadRoot(file, nowMs);
    if (root === null) throw new CaError('CA_STATE', `${file} is gone: put it back`, { file });
    return root;
  }

  /** Each step may be the last before a crash: done again, it does no harm. */
  #promote(old: RootCa): void {
    const roots = distinctPem([old.certificate, ...this.#previous()]);
    writeFileAtomically(this.#path(PREVIOUS), roots.join(''), 0o644);
    this.#writeProgress({ announcedAtMs: null, promotedAtMs: this.#deps.nowMs() });
    renameSync(this.#path(NEXT), this.#path(ROOT));
    syncFolderOf(this.#path(ROOT));
    this.#deps.log.info({}, 'the new root signs from now on; the old one is still trusted');
  }

  #retirePrevious(progress: Progress): void {
    rmSync(this.#path(PREVIOUS), { force: true });
    this.#writeProgress({ ...progress, promotedAtMs: null });
    this.#deps.log.info({}, 'the old root is trusted no more');
  }

  #previous(): Buffer[] {
    const file = this.#path(PREVIOUS);
    const text = readOrNull(file);
    if (text === null) return [];
    try {
      return pemToDer(text, 'CERTIFICATE');
    } catch (error) {
      throw new CaError('CA_STATE', `${file}: ${messageOf(error)}`, { file }, error);
    }
  }

  #readProgress(): Progress {
    const file = this.#path(PROGRESS);
    const text = readOrNull(file);
    if (text === null) return NO_PROGRESS;
    try {
      const { announcedAtMs = null, promotedAtMs = null } = JSON.parse(text) as Partial<Progress>;
      return { announcedAtMs, promotedAtMs };
    } catch (error) {
      throw new CaError('CA_STATE', `${file}: ${messageOf(error)}`, { file }, error);
    }
  }

  #writeProgress(progress: Progress): void {
    writeFileAtomically(this.#path(PROGRESS), `${JSON.stringify(progress)}\n`, 0o644);
  }

  #path(name: string): string {
    return join(this.#options.stateDir, name);
  }
}

function isOver(sinceMs: number | null, overlapMs: number, nowMs: number): boolean {
  return sinceMs !== null && nowMs - sinceMs >= overlapMs;
}

function isNearItsEnd({ certificate }: RootCa, nowMs: number): boolean {
  const { notBeforeMs, notAfterMs } = readCertificate(certificate);
  return notAfterMs - nowMs < LAST_PART * (notAfterMs - notBeforeMs);
}

function readOrNull(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new CaError('CA_STATE', `${file} cannot be read: ${messageOf(error)}`, { file }, error);
  }
}
