import type { Clock } from '../common/clock.js';
import type { CertificateListener, IdentityMaterial } from '../identity/index.js';
import type { TlsContextId, TlsMaterial } from '../io/types.js';
import type { ContextListener } from './types.js';

export interface TlsContextsOptions {
  /** A replaced context is released after this; until then handshakes under way in workers may still take it. Default 60 s. */
  readonly releaseGraceMs?: number;
}

export interface TlsContextsDeps {
  /** `EngineTlsContexts` of mesh/io. */
  readonly engine: {
    create(material: TlsMaterial): TlsContextId;
    release(context: TlsContextId): void;
  };
  readonly clock: Clock;
}

/**
 * Keeps one live SSL context per identity in step with the certificate manager (subscribe it there). Belongs to the main thread, the only one that makes and
 * releases contexts; connections keep the one they were made with.
 */
export class TlsContexts implements CertificateListener {
  private readonly graceMs: number;
  private readonly deps: TlsContextsDeps;
  private readonly contexts = new Map<string, TlsContextId>();
  private readonly listeners = new Set<ContextListener>();

  constructor(options: TlsContextsOptions, deps: TlsContextsDeps) {
    this.graceMs = options.releaseGraceMs ?? 60_000;
    this.deps = deps;
  }

  current(identity: string): TlsContextId | null {
    return this.contexts.get(identity) ?? null;
  }

  /** All live ones, for a worker that starts. */
  entries(): ReadonlyMap<string, TlsContextId> {
    return this.contexts;
  }

  /** Hears every change from now on; returns how to stop. */
  subscribe(listener: ContextListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  onCertificate(identity: string, material: IdentityMaterial): void {
    const { certificateChain, privateKey, trustBundle } = material;
    const context = this.deps.engine.create({ certificateChain, privateKey, trustBundle });
    this.releaseLater(identity);
    this.contexts.set(identity, context);
    for (const listener of this.listeners) listener.onContext(identity, context);
  }

  onGone(identity: string): void {
    this.releaseLater(identity);
    this.contexts.delete(identity);
    for (const listener of this.listeners) listener.onContext(identity, null);
  }

  private releaseLater(identity: string): void {
    const old = this.contexts.get(identity);
    if (old !== undefined) this.deps.clock.setTimer(this.graceMs, () => this.deps.engine.release(old));
  }
}
