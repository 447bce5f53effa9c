import type { experimental } from '@grpc/grpc-js';
import { messageOf } from '../../mesh/common/errors.js';
import { buildCsr, derToPem, generateKeyPair } from '../../mesh/identity/index.js';
import type { Log } from '../../mesh/log/index.js';
import { type Authority, backdateMs } from './authority.js';

type Listener = experimental.IdentityCertificateUpdateListener;

export interface ServerCertificateOptions {
  /** DNS names and IP addresses that clients reach the controller by. */
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly lifetimeMs: number;
}

export interface ServerCertificateDeps {
  readonly authority: Authority;
  readonly log: Log;
}

/** After a failure. */
const RETRY_MS = 30_000;

/** The controller's own TLS certificate, from the mesh's root; made anew at half its life and when the root changes, without a restart. Never on disk. */
export class ServerCertificate implements experimental.CertificateProvider {
  readonly #options: ServerCertificateOptions;
  readonly #deps: ServerCertificateDeps;
  readonly #listeners: Set<Listener>;
  readonly #unsubscribe: () => void;
  #timer: NodeJS.Timeout;
  #current: experimental.IdentityCertificateUpdate;
  /** Of the last renewal begun: what an earlier one brings later is out of date. */
  #renewal = 0;

  /** Rejects where the authority does not sign now. */
  static async make(
    options: ServerCertificateOptions,
    deps: ServerCertificateDeps,
  ): Promise<ServerCertificate> {
    return new ServerCertificate(options, deps, await issue(options, deps.authority));
  }

  private constructor(
    options: ServerCertificateOptions,
    deps: ServerCertificateDeps,
    first: experimental.IdentityCertificateUpdate,
  ) {
    this.#options = options;
    this.#deps = deps;
    this.#listeners = new Set();
    this.#current = first;
    this.#timer = this.#renewIn(options.lifetimeMs / 2);
    this.#unsubscribe = deps.authority.subscribe(() => void this.renew());
  }

  /** A new key and certificate for connections from now on. What it cannot be made of (a CA that has expired) leaves the old one; it is tried again. */
  async renew(): Promise<void> {
    const renewal = ++this.#renewal;
    try {
      const made = await issue(this.#options, this.#deps.authority);
      if (renewal !== this.#renewal) return;
      this.#current = made;
    } catch (error) {
      if (renewal !== this.#renewal) return;
      this.#deps.log.error({ reason: messageOf(error) }, 'server certificate cannot be renewed');
      this.#timer = this.#renewIn(RETRY_MS);
      return;
    }
    this.#timer = this.#renewIn(this.#options.lifetimeMs / 2);
    this.#deps.log.info(
      { names: [...this.#options.dnsNames, ...this.#options.ipAddresses] },
      'server certificate renewed',
    );
    for (const listener of this.#listeners) listener(this.#current);
  }

  close(): void {
    this.#renewal++;
    clearTimeout(this.#timer);
    this.#unsubscribe();
  }

  addIdentityCertificateListener(listener: Listener): void {
    this.#listeners.add(listener);
    // Later: grpc-js adds its server to those who hear of it only after this call, and would drop every connection for want of a certificate.
    queueMicrotask(() => {
      if (this.#listeners.has(listener)) listener(this.#current);
    });
  }

  removeIdentityCertificateListener(listener: Listener): void {
    this.#listeners.delete(listener);
  }

  addCaCertificateListener(): void {}

  removeCaCertificateListener(): void {}

  #renewIn(delayMs: number): NodeJS.Timeout {
    clearTimeout(this.#timer);
    return setTimeout(() => void this.renew(), delayMs).unref();
  }
}

async function issue(
  { dnsNames, ipAddresses, lifetimeMs }: ServerCertificateOptions,
  authority: Authority,
): Promise<experimental.IdentityCertificateUpdate> {
  const keys = generateKeyPair();
  const now = Date.now();
  const { certificate, intermediates } = await authority.sign({
    csr: buildCsr(keys, { dnsNames, ipAddresses }),
    publicKey: keys.publicKey,
    dnsNames,
    ipAddresses,
    notBeforeMs: now - backdateMs(lifetimeMs),
    notAfterMs: now + lifetimeMs,
  });
  return {
    certificate: Buffer.from([derToPem(certificate, 'CERTIFICATE'), ...intermediates].join('')),
    privateKey: Buffer.from(keys.privateKey.export({ type: 'pkcs8', format: 'pem' })),
  };
}
