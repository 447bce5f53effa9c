import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../mesh/common/errors.js';
import { type ApiClient, BACKOFF_DEFAULTS, Backoff, statusOf } from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';
import { CaError, type CaMaterial, checkStep, KeyAuthority, readMaterial } from '../ca/index.js';
import {
  firstRoot,
  newSecret,
  nextStep,
  OWN_TYPE,
  ownRootOf,
  partOf,
  type SecretObject,
  secretOf,
} from './root-secret.js';

export interface SecretAuthorityOptions {
  readonly namespace: string;
  /** Of a CA that somebody else provides: it counts before our own. */
  readonly pluggedName: string;
  /** Of our own: made where there is neither. */
  readonly ownName: string;
  /** ConfigMap with the bundle, in the same namespace: where it is, there has been a root. */
  readonly bundleName: string;
  readonly trustDomain: string;
  /** As of `StateAuthority`. */
  readonly overlapMs: number;
  /** How often the Secrets are looked at. */
  readonly intervalMs: number;
}

export const SECRET_AUTHORITY_DEFAULTS = {
  pluggedName: 'cacerts',
  ownName: 'culvert-ca-secret',
  bundleName: 'culvert-ca-root-cert',
} as const;

export interface SecretAuthorityDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly log: Log;
  readonly nowMs: () => number;
}

/**
 * A CA in a Secret of the controller's namespace: Istio's `cacerts`, or cert-manager's names, given by somebody else; else a root of our own, made by whichever replica is first.
 * Secrets are looked at again and again; what cannot be used, or would leave agents without a common root, is reported, and the last good one stays.
 */
export class SecretAuthority extends KeyAuthority {
  readonly #options: SecretAuthorityOptions;
  readonly #deps: SecretAuthorityDeps;
  readonly #stopping = new AbortController();
  /** Our own as last seen: put back where it is gone. */
  #own: SecretObject | null = null;
  #isPlugged = false;
  #lastError = '';

  /** Waits for the API server as long as it takes, telling `onWaiting` why. Rejects with CaError where what is there cannot be used: it is never replaced. */
  static async open(
    options: SecretAuthorityOptions,
    deps: SecretAuthorityDeps,
    waiting: { readonly signal: AbortSignal; readonly onWaiting: (reason: string) => void },
  ): Promise<SecretAuthority> {
    const authority = new SecretAuthority(options, deps);
    const backoff = new Backoff(BACKOFF_DEFAULTS, { random: Math.random });
    for (;;) {
      try {
        authority.replace(await authority.#read());
        void authority.#follow();
        return authority;
      } catch (error) {
        if (error instanceof CaError) throw error;
        waiting.onWaiting(`CA: ${messageOf(error)}`);
        await sleep(backoff.next(), undefined, { signal: waiting.signal });
      }
    }
  }

  private constructor(options: SecretAuthorityOptions, deps: SecretAuthorityDeps) {
    super(deps.log);
    this.#options = options;
    this.#deps = deps;
  }

  close(): void {
    this.#stopping.abort();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await sleep(this.#options.intervalMs, undefined, { signal, ref: false }).catch(() => {});
      if (!signal.aborted) await this.#check();
    }
  }

  async #check(): Promise<void> {
    const { log } = this.#deps;
    try {
      const material = await this.#read();
      checkStep(this.current, material);
      this.#lastError = '';
      if (this.replace(material))
        log.info({ roots: material.roots.length }, 'the trust bundle or the signing CA has changed');
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#lastError)
        log.error({ reason }, "the CA's Secret cannot be used; the last good one stays in force");
      this.#lastError = reason;
    }
  }

  async #read(): Promise<CaMaterial> {
    const { pluggedName, ownName } = this.#options;
    const plugged = await this.#get(pluggedName);
    if (plugged !== null) return this.#materialOf(plugged, true);
    const own = (await this.#get(ownName)) ?? (await this.#create());
    return this.#materialOf(own.type === OWN_TYPE ? await this.#advance(own) : own, false);
  }

  #materialOf(secret: SecretObject, isPlugged: boolean): CaMaterial {
    try {
      const material = readMaterial((name) => partOf(secret, name), this.#deps.nowMs());
      this.#isPlugged = isPlugged;
      this.#own = isPlugged ? null : secret;
      return material;
    } catch (error) {
      if (error instanceof CaError) throw error;
      const place = `Secret ${secret.metadata.namespace}/${secret.metadata.name}`;
      throw new CaError('CA_STATE', `${place}: ${messageOf(error)}`, { file: place }, error);
    }
  }

  /** The first replica makes it, the others read it. One that is gone is put back: another root would cut off everybody at once. */
  async #create(): Promise<SecretObject> {
    const { namespace, ownName, pluggedName, trustDomain } = this.#options;
    if (this.#isPlugged)
      throw new CaError('CA_STATE', `Secret ${namespace}/${pluggedName} is gone: put it back`);
    const known = this.#own === null ? null : ownRootOf(this.#own);
    const lost = known === null ? await this.#lost() : null;
    if (lost !== null) return lost;
    const root = known ?? firstRoot(trustDomain, this.#deps.nowMs());
    const body = newSecret(namespace, ownName, root);
    try {
      const made = (await this.#deps.client.request({
        method: 'POST',
        path: this.#path(),
        body,
      })) as SecretObject;
      this.#deps.log.info({ secret: `${namespace}/${ownName}` }, 'the root was put into its Secret');
      return made;
    } catch (error) {
      const existing = statusOf(error) === 409 ? await this.#get(ownName) : null;
      if (existing === null) throw error;
      return existing;
    }
  }

  /** A new root in place of one that was lost would cut every agent off, without a word. Gives the Secret where it has come meanwhile. Throws CaError. */
  async #lost(): Promise<SecretObject | null> {
    const { namespace, ownName, bundleName } = this.#options;
    // In this order: who made the Secret wrote the bundle after it.
    const bundle = await this.#find(`/api/v1/namespaces/${namespace}/configmaps/${bundleName}`);
    if (bundle === null) return null;
    const secret = await this.#get(ownName);
    if (secret !== null) return secret;
    throw new CaError(
      'CA_STATE',
      `Secret ${namespace}/${ownName} is missing, and this mesh had a root (ConfigMap ${bundleName}): put it back, or delete that ConfigMap, too, to begin with a new root, which every agent must then be given`,
    );
  }

  /** A step of the rotation, by whichever replica is first. */
  async #advance(own: SecretObject): Promise<SecretObject> {
    const { trustDomain, overlapMs } = this.#options;
    const root = ownRootOf(own);
    if (root === null) return own; // what is missing is told by `readMaterial`
    const step = nextStep(root, { trustDomain, overlapMs, nowMs: this.#deps.nowMs() });
    if (step === root) return own;
    const path = this.#path(own.metadata.name);
    try {
      return (await this.#deps.client.request({
        method: 'PUT',
        path,
        body: secretOf(own, step),
      })) as SecretObject;
    } catch (error) {
      if (statusOf(error) === 409) return own; // another was first: seen next time
      throw error;
    }
  }

  async #get(name: string): Promise<SecretObject | null> {
    return (await this.#find(this.#path(name))) as SecretObject | null;
  }

  /** Null: there is none. */
  async #find(path: string): Promise<unknown> {
    try {
      return await this.#deps.client.request({ path });
    } catch (error) {
      if (statusOf(error) === 404) return null;
      throw error;
    }
  }

  #path(name = ''): string {
    const all = `/api/v1/namespaces/${this.#options.namespace}/secrets`;
    return name === '' ? all : `${all}/${name}`;
  }
}
