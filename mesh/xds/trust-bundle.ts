import { X509Certificate } from 'node:crypto';
import { messageOf } from '../common/errors.js';
import { pemToDer } from '../identity/index.js';
import { type envoy, istio, PROXY_CONFIG_TYPE_URL } from '../proto/index.js';
import type { XdsTypeState } from './types.js';

type Response = envoy.service.discovery.v3.DeltaDiscoveryResponse.$Properties;

/** What a push of the trust bundle comes to. */
export interface TrustBundlePush {
  /** DER; null: nothing new that can be used. */
  readonly roots: readonly Buffer[] | null;
  readonly problems: readonly string[];
}

/**
 * The mesh's roots as the controller pushes them (Istio's PCDS: one ProxyConfig, nameless at istiod). A bundle that is empty or not readable is
 * rejected, and a removal changes nothing: without roots there is no mesh.
 */
export class TrustBundleSubscription {
  readonly typeUrl = PROXY_CONFIG_TYPE_URL;
  #version = '';
  #name = '';
  #rejected: string | null = null;
  #messages = 0;
  #messageBytes = 0;
  #messageAtMs: number | null = null;
  #hasRoots = false;

  get state(): XdsTypeState {
    return {
      typeUrl: this.typeUrl,
      messages: this.#messages,
      messageBytes: this.#messageBytes,
      ageMs: this.#messageAtMs === null ? null : performance.now() - this.#messageAtMs,
      resources: this.#hasRoots ? 1 : 0,
      rejected: new Map(this.#rejected === null ? [] : [[this.#name, this.#rejected]]),
    };
  }

  initialVersions(): Record<string, string> {
    return this.#name === '' || this.#version === '' ? {} : { [this.#name]: this.#version };
  }

  read(response: Response): TrustBundlePush {
    try {
      const roots = (response.resources ?? []).flatMap((resource) => rootsOf(resource.resource?.value));
      if (roots.length > 0) return { roots, problems: [] };
      const isEmpty = (response.resources ?? []).length > 0;
      return { roots: null, problems: isEmpty ? ['trust bundle: it is empty'] : [] };
    } catch (error) {
      return { roots: null, problems: [`trust bundle: ${messageOf(error)}`] };
    }
  }

  commit(response: Response, push: TrustBundlePush, bytes: number): void {
    this.#messages++;
    this.#messageAtMs = performance.now();
    this.#messageBytes += bytes;
    this.#rejected = push.problems[0] ?? null;
    const resource = response.resources?.[0];
    if (resource === undefined || push.roots === null) return;
    this.#hasRoots = true;
    this.#name = resource.name ?? '';
    this.#version = resource.version ?? '';
  }
}

function rootsOf(value: Uint8Array | null | undefined): Buffer[] {
  const { caCertificatesPem } = istio.mesh.v1alpha1.ProxyConfig.decode(value ?? new Uint8Array());
  const roots = caCertificatesPem.flatMap((pem) => pemToDer(pem, 'CERTIFICATE'));
  for (const root of roots)
    if (!new X509Certificate(root).ca) throw new Error('a certificate of it is no CA');
  return roots;
}
