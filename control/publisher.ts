import { ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, istio } from '../mesh/proto/index.js';
import type { Model, ModelChange } from './model/index.js';
import type { Reports } from './reports.js';
import {
  type AddressTranslator,
  type AddressUpdates,
  type AuthorizationUpdates,
  limitationsOf,
  strictPolicy,
  type TranslateOptions,
  translateAuthorizations,
} from './translate/index.js';
import type { VipState } from './vip-state.js';
import type { ResourceContent, XdsServer } from './xds/index.js';

type AuthorizationResource = NonNullable<ReturnType<AuthorizationUpdates['resources']['get']>>;

export interface PublisherOptions extends TranslateOptions {
  /** A policy that workloads named is served so long after it is gone: an agent that is sent its end before the workloads' would refuse their connections. */
  readonly lingerMs: number;
}

/** Longer than an agent takes to answer a push. */
export const PUBLISHER_DEFAULTS = { lingerMs: 5000 } as const;

export interface PublisherDeps {
  readonly model: Model;
  readonly addresses: AddressTranslator;
  readonly vips: VipState;
  readonly xds: Pick<XdsServer, 'update'>;
  readonly reports: Reports;
}

/**
 * Makes of each change what agents are sent: first policies, then the workloads that name them. Only where a policy of a namespace or of all ends,
 * or narrows to the workloads that name it, that comes after these: in between it, or what replaces it, would apply to nobody.
 */
export class Publisher {
  readonly #options: PublisherOptions;
  readonly #deps: PublisherDeps;
  /** Policies that workloads name, as they are served. */
  readonly #named: Set<string>;
  /** Those that apply to a namespace or to all, as they are served. */
  readonly #broad: Set<string>;
  readonly #lingering: Map<string, NodeJS.Timeout>;

  constructor(options: PublisherOptions, deps: PublisherDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#named = new Set();
    this.#broad = new Set();
    this.#lingering = new Map();
    const strict = strictPolicy(options);
    deps.xds.update(AUTHORIZATION_TYPE_URL, encodeAuthorizations(new Map([[strict.name, strict]])));
  }

  publish(change: ModelChange): void {
    const { model, addresses, vips, xds, reports } = this.#deps;
    const { resources, limitations } = translateAuthorizations(model, change.policies, this.#options);
    const updates = addresses.translate(change);
    vips.save();
    const narrowed = new Map([...resources].filter(([name, resource]) => this.#narrows(name, resource)));
    const others = new Map([...resources].filter(([name]) => !narrowed.has(name)));
    xds.update(AUTHORIZATION_TYPE_URL, encodeAuthorizations(this.#withoutLingering(others)));
    xds.update(ADDRESS_TYPE_URL, encodeAddresses(updates));
    xds.update(
      AUTHORIZATION_TYPE_URL,
      encodeAuthorizations(this.#withoutLingering(narrowed)),
      ADDRESS_TYPE_URL,
    );
    reports.update(limitations);
    reports.update(limitationsOf(change, model, vips.vips, this.#options));
  }

  stop(): void {
    for (const timer of this.#lingering.values()) clearTimeout(timer);
    this.#lingering.clear();
    this.#deps.vips.close();
  }

  #withoutLingering(updates: AuthorizationUpdates['resources']): AuthorizationUpdates['resources'] {
    const now = new Map(updates);
    for (const [name, resource] of updates) {
      if (resource === null && this.#named.has(name)) {
        now.delete(name);
        this.#linger(name);
        continue;
      }
      clearTimeout(this.#lingering.get(name));
      this.#lingering.delete(name);
      this.#named.delete(name);
      this.#broad.delete(name);
      if (resource !== null) (isNamed(resource) ? this.#named : this.#broad).add(name);
    }
    return now;
  }

  #narrows(name: string, resource: AuthorizationResource | null): boolean {
    return (resource === null || isNamed(resource)) && this.#broad.has(name);
  }

  #linger(name: string): void {
    if (this.#lingering.has(name)) return;
    const end = () => {
      this.#lingering.delete(name);
      this.#named.delete(name);
      this.#deps.xds.update(AUTHORIZATION_TYPE_URL, new Map([[name, null]]));
    };
    this.#lingering.set(name, setTimeout(end, this.#options.lingerMs));
  }
}

/** It applies to the workloads that name it, and to no others. */
function isNamed({ message }: AuthorizationResource): boolean {
  return message.scope === istio.security.Scope.WORKLOAD_SELECTOR;
}

function encodeAuthorizations(
  updates: AuthorizationUpdates['resources'],
): Map<string, ResourceContent | null> {
  const encoded = new Map<string, ResourceContent | null>();
  for (const [key, resource] of updates) {
    const { Authorization } = istio.security;
    encoded.set(key, resource && { ...resource, value: Authorization.encode(resource.message).finish() });
  }
  return encoded;
}

function encodeAddresses(updates: AddressUpdates): Map<string, ResourceContent | null> {
  const encoded = new Map<string, ResourceContent | null>();
  for (const [key, resource] of updates) {
    const { Address } = istio.workload;
    encoded.set(key, resource && { ...resource, value: Address.encode(resource.message).finish() });
  }
  return encoded;
}
