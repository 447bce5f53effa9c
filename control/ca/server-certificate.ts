import type { experimental } from '@grpc/grpc-js';
import { messageOf } from '../../mesh/common/errors.js';
import { derToPem, generateKeyPair, issueCertificate } from '../../mesh/identity/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { Authority } from './authority.js';

type Listener = experimental.IdentityCertificateUpdateListener;

export interface ServerCertificateOptions {
  /** DNS names and IP addresses that clients reach the controller by. */
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly lifetimeMs: number;
}

/** The controller's own TLS certificate, from the mesh's root; made anew at half its life and when the root changes, without a restart. Never on disk. */
export class ServerCertificate implements experimental.CertificateProvider {
  readonly #options: ServerCertificateOptions;
  readonly #deps: { readonly authority: Authority; readonly log: Log };
  readonly #listeners: Set<Listener>;
  readonly #renewal: NodeJS.Timeout;
  readonly #unsubscribe: () => void;
  #current: experimental.IdentityCertificateUpdate;

  constructor(options: ServerCertificateOptions, deps: { readonly authority: Authority; readonly log: Log }) {
    this.#options = options;
    this.#deps = deps;
    this.#listeners = new Set();
    this.#current = this.#issue();
    this.#renewal = setInterval(() => this.renew(), options.lifetimeMs / 2).unref();
    this.#unsubscribe = deps.authority.subscribe(() => this.renew());
  }

  /** A new key and certificate for connections from now on. What it cannot be made of (a CA that has expired) leaves the old one. */
  renew(): void {
    try {
      this.#current = this.#issue();
    } catch (error) {
      this.#deps.log.error({ reason: messageOf(error) }, 'server certificate cannot be renewed');
      return;
    }
    this.#deps.log.info(
      { names: [...this.#options.dnsNames, ...this.#options.ipAddresses] },
      'server certificate renewed',
    );
    for (const listener of this.#listeners) listener(this.#current);
  }

  close(): void {
    clearInterval(this.#renewal);
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

  #issue(): experimental.IdentityCertificateUpdate {
    const { dnsNames, ipAddresses, lifetimeMs } = this.#options;
    const authority = this.#deps.authority.current;
    const keys = generateKeyPair();
    const now = Date.now();
    const der = issueCertificate(
      {
        publicKey: keys.publicKey,
        commonName: 'culvert-controller',
        dnsNames,
        ipAddresses,
        notBeforeMs: now - 60_000,
        notAfterMs: now + lifetimeMs,
      },
      authority,
    );
    return {
      certificate: Buffer.from([derToPem(der, 'CERTIFICATE'), ...authority.intermediates].join('')),
      privateKey: Buffer.from(keys.privateKey.export({ type: 'pkcs8', format: 'pem' })),
    };
  }
}
