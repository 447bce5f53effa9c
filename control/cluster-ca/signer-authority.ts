import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../mesh/common/errors.js';
import { FilesWatch } from '../../mesh/common/files-watch.js';
import { Gate } from '../../mesh/common/gate.js';
import { derToPem, IdentityError, readCertificate, readCsr, verifyChain } from '../../mesh/identity/index.js';
import { type ApiClient, statusOf } from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';
import {
  type Authority,
  CaError,
  ChangeListeners,
  certificatesIn,
  distinctPem,
  type IssuedLeaf,
  type LeafRequest,
  pathOf,
} from '../ca/index.js';

export interface SignerAuthorityOptions {
  /** spec.signerName of the requests. */
  readonly signer: string;
  /** File of the roots that the signer's certificates lead to, PEM, watched. */
  readonly rootsFile: string;
  readonly intervalMs: number;
  /** From the request to the certificate; below what agents wait (10 s). */
  readonly timeoutMs: number;
  readonly maxConcurrent: number;
  readonly maxWaiting: number;
}

export const SIGNER_DEFAULTS = {
  intervalMs: 1000,
  timeoutMs: 8000,
  maxConcurrent: 16,
  maxWaiting: 1000,
} as const;

export interface SignerAuthorityDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly log: Log;
  readonly nowMs: () => number;
}

interface RequestObject {
  readonly metadata: { readonly name: string; readonly [field: string]: unknown };
  readonly status?: {
    /** Base64 of PEM. */
    readonly certificate?: string;
    readonly conditions?: readonly { readonly type: string; readonly message?: string }[];
  };
}

const PATH = '/apis/certificates.k8s.io/v1/certificatesigningrequests';
/** As istiod asks for them. */
const USAGES = ['digital signature', 'key encipherment', 'server auth', 'client auth'];
/** The API takes no less. */
const MIN_SECONDS = 600;
const POLL_MS = 100;
const MOST_POLL_MS = 1000;

/**
 * A CA behind the Kubernetes CSR API: each certificate is a CertificateSigningRequest to a named signer. We say who may have what (and approve, where we may);
 * the signer signs. What it gives is looked at before it is handed on: the key, the identity, the way to a root.
 */
export class SignerAuthority implements Authority {
  readonly #options: SignerAuthorityOptions;
  readonly #deps: SignerAuthorityDeps;
  readonly #listeners: ChangeListeners;
  readonly #watch: FilesWatch;
  readonly #gate: Gate;
  /** DER. */
  #roots: readonly Buffer[];
  #approves = true;
  /** Unix milliseconds: of the last chain that was seen. */
  #chainMs: number | null = null;

  /** Throws CaError where the roots cannot be read. */
  constructor(options: SignerAuthorityOptions, deps: SignerAuthorityDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#listeners = new ChangeListeners(deps.log);
    this.#roots = this.#readRoots();
    const {
      rootsFile,
      intervalMs,
      timeoutMs: maxWaitMs,
      maxConcurrent: most,
      maxWaiting: mostWaiting,
    } = options;
    this.#watch = new FilesWatch({ files: [rootsFile], intervalMs }, () => this.#rootsChanged());
    this.#gate = new Gate({ most, mostWaiting, maxWaitMs }, { nowMs: () => performance.now() });
  }

  get roots(): readonly string[] {
    return distinctPem(this.#roots);
  }

  get expiries(): Authority['expiries'] {
    const rootMs = Math.max(...this.#roots.map((der) => readCertificate(der).notAfterMs));
    return { rootMs, chainMs: this.#chainMs ?? rootMs };
  }

  subscribe(listener: () => void): () => void {
    return this.#listeners.add(listener);
  }

  close(): void {
    this.#watch.close();
  }

  async sign(request: LeafRequest): Promise<IssuedLeaf> {
    checkPlain(request);
    const issued = await this.#gate.pass(() => this.#ask(request));
    if (issued === null) throw this.#failure('too many certificates wait for it');
    return issued;
  }

  async #ask(request: LeafRequest): Promise<IssuedLeaf> {
    const signal = AbortSignal.timeout(this.#options.timeoutMs);
    let name: string | null = null;
    try {
      const made = await this.#create(request, signal);
      name = made.metadata.name;
      await this.#approve(made, signal);
      const pem = await this.#await(name, signal);
      return this.#check(request, pem);
    } catch (error) {
      if (error instanceof CaError) throw error;
      const isLate = signal.aborted;
      throw this.#failure(isLate ? `no certificate within ${this.#options.timeoutMs} ms` : messageOf(error));
    } finally {
      if (name !== null) this.#remove(name);
    }
  }

  async #create(request: LeafRequest, signal: AbortSignal): Promise<RequestObject> {
    const seconds = Math.ceil((request.notAfterMs - this.#deps.nowMs()) / 1000);
    const body = {
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { generateName: 'culvert-', labels: { 'app.kubernetes.io/managed-by': 'culvert' } },
      spec: {
        request: Buffer.from(request.csr).toString('base64'),
        signerName: this.#options.signer,
        expirationSeconds: Math.max(MIN_SECONDS, seconds),
        usages: USAGES,
      },
    };
    return (await this.#deps.client.request({ method: 'POST', path: PATH, body, signal })) as RequestObject;
  }

  /** Who may have what has been decided; where we may not say so ourselves, another has to. */
  async #approve(made: RequestObject, signal: AbortSignal): Promise<void> {
    if (!this.#approves) return;
    const condition = {
      type: 'Approved',
      status: 'True',
      reason: 'CulvertIdentity',
      message: 'Token, pod and node of the caller are as they should be.',
    };
    const path = `${PATH}/${made.metadata.name}`;
    const body = { ...made, status: { conditions: [condition] } };
    try {
      await this.#deps.client.request({ method: 'PUT', path: `${path}/approval`, body, signal });
    } catch (error) {
      if (statusOf(error) === 409) {
        // Somebody has written to it since: an answer, perhaps.
        const now = (await this.#deps.client.request({ path, signal })) as RequestObject;
        if ((now.status?.conditions ?? []).length === 0) await this.#approve(now, signal);
        return;
      }
      if (statusOf(error) !== 403) throw error;
      this.#approves = false;
      this.#deps.log.warn(
        { reason: messageOf(error) },
        'requests are not approved here: somebody else has to',
      );
    }
  }

  /** PEM, as the signer gave it. */
  async #await(name: string, signal: AbortSignal): Promise<string> {
    for (let waitMs = POLL_MS; ; waitMs = Math.min(2 * waitMs, MOST_POLL_MS)) {
      await sleep(waitMs, undefined, { signal });
      const { status } = (await this.#deps.client.request({
        path: `${PATH}/${name}`,
        signal,
      })) as RequestObject;
      if (status?.certificate !== undefined && status.certificate !== '')
        return Buffer.from(status.certificate, 'base64').toString('utf8');
      const end = status?.conditions?.find(({ type }) => type === 'Denied' || type === 'Failed');
      if (end !== undefined) throw this.#failure(`${end.type}: ${(end.message ?? '').slice(0, 300)}`);
    }
  }

  #check(request: LeafRequest, pem: string): IssuedLeaf {
    const [certificate, ...helpers] = certificatesIn({ place: `signer ${this.#options.signer}`, text: pem });
    const { publicKey, uris } = readCertificate(certificate!);
    const wanted = request.uris ?? [];
    if (!publicKey.equals(request.publicKey.export({ type: 'spki', format: 'der' })))
      throw this.#failure('its certificate is for another key');
    if (uris.length !== wanted.length || uris.some((uri, index) => uri !== wanted[index]))
      throw this.#failure(`its certificate is for ${uris.join(', ').slice(0, 300) || 'nobody'}`);
    const [leaf, ...way] = pathOf(certificate!, helpers, this.#roots);
    if (leaf === undefined) throw this.#failure('its certificate is a root');
    verifyChain([leaf, ...way], this.#roots, this.#deps.nowMs());
    this.#chainMs = Math.min(...way.map((der) => readCertificate(der).notAfterMs), this.expiries.rootMs);
    const intermediates = way.map((der) => derToPem(der, 'CERTIFICATE'));
    return { certificate: leaf, intermediates, roots: this.roots };
  }

  /** In its own time; what is left is collected by Kubernetes. */
  #remove(name: string): void {
    this.#deps.client.request({ method: 'DELETE', path: `${PATH}/${name}` }).catch((error) => {
      this.#deps.log.debug({ name, reason: messageOf(error) }, 'a signing request could not be removed');
    });
  }

  #rootsChanged(): void {
    const { log } = this.#deps;
    try {
      const roots = this.#readRoots();
      if (!roots.some((root) => this.#roots.some((known) => known.equals(root))))
        throw new Error('none of the roots in force is among them: add the new ones first');
      this.#roots = roots;
      log.info({ roots: roots.length }, 'the trust bundle has changed');
      this.#listeners.tell();
    } catch (error) {
      log.error({ reason: messageOf(error) }, 'roots cannot be used; the last good ones stay in force');
    }
  }

  #readRoots(): readonly Buffer[] {
    const { rootsFile: place } = this.#options;
    try {
      const roots = certificatesIn({ place, text: readFileSync(place, 'utf8') });
      if (!roots.every((der) => readCertificate(der).isCa)) throw new Error('a certificate of it is no CA');
      return roots;
    } catch (error) {
      if (error instanceof CaError) throw error;
      throw new CaError('CA_STATE', `${place}: ${messageOf(error)}`, { file: place }, error);
    }
  }

  #failure(reason: string): CaError {
    return new CaError('CA_SIGNER', `signer ${this.#options.signer}: ${reason}`);
  }
}

/** A workload's request goes to the signer as it came: it must not ask for more than was granted. Throws IdentityError BAD_CSR. */
function checkPlain({ csr, uris }: LeafRequest): void {
  if (uris === undefined) return; // our own
  const asked = readCsr(csr);
  if (!asked.isPlain || asked.uris[0] !== uris[0])
    throw new IdentityError('BAD_CSR', `the CSR must ask for ${uris[0]} and for nothing else`);
}
