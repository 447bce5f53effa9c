import { ADDRESS_TYPE_URL, type AUTHORIZATION_TYPE_URL, type envoy } from '../proto/index.js';
import type { AuthorizationPolicy, Service, StoreUpdate, Workload } from '../store/types.js';
import { decodeAddress } from './decode-address.js';
import { decodeAuthorization } from './decode-authorization.js';
import type { XdsTypeState } from './types.js';

type Response = envoy.service.discovery.v3.DeltaDiscoveryResponse.$Properties;
type Resource = envoy.service.discovery.v3.Resource.$Properties;

/** What a push comes to. */
export interface Push {
  /** Of the sound resources only. */
  readonly update: StoreUpdate;
  /** `name: reasons` of each rejected resource, for the NACK. */
  readonly problems: readonly string[];
  readonly outcomes: readonly Outcome[];
}

interface Outcome {
  readonly name: string;
  readonly version: string;
  /** Why it was rejected; empty: it is sound. */
  readonly reasons: readonly string[];
  /** Rejected, but something of it is in the store. */
  readonly holdsPlace: boolean;
}

interface Held {
  readonly version: string;
  readonly isSound: boolean;
}

interface Changes {
  readonly workloads: Workload[];
  readonly services: Service[];
  readonly policies: AuthorizationPolicy[];
}

/** What we hold of one resource type, across streams: names with the version that is in force. */
export class Subscription {
  readonly typeUrl: string;
  /** On reconnect the controller learns of these, and sends what has changed or gone. */
  readonly #held = new Map<string, Held>();
  readonly #rejected = new Map<string, string>();
  #messages = 0;
  #messageBytes = 0;
  #messageAtMs: number | null = null;
  #wasAccepted = false;

  constructor(typeUrl: typeof ADDRESS_TYPE_URL | typeof AUTHORIZATION_TYPE_URL) {
    this.typeUrl = typeUrl;
  }

  /** A push has been accepted whole, once. */
  get wasAccepted(): boolean {
    return this.#wasAccepted;
  }

  get state(): XdsTypeState {
    return {
      typeUrl: this.typeUrl,
      messages: this.#messages,
      messageBytes: this.#messageBytes,
      ageMs: this.#messageAtMs === null ? null : performance.now() - this.#messageAtMs,
      resources: this.#held.size,
      rejected: new Map(this.#rejected),
    };
  }

  initialVersions(): Record<string, string> {
    return Object.fromEntries([...this.#held].map(([name, held]) => [name, held.version]));
  }

  /** Reads a push of this type; changes nothing. Call `commit` once its update is in force. */
  read(response: Response): Push {
    const changes: Changes = { workloads: [], services: [], policies: [] };
    const outcomes = (response.resources ?? []).map((resource) => this.#readResource(resource, changes));
    const rejected = outcomes.filter((outcome) => outcome.reasons.length > 0);
    const removed = response.removedResources ?? [];
    const isAddress = this.typeUrl === ADDRESS_TYPE_URL;
    return {
      update: {
        snapshot: false,
        ...changes,
        // The first push tells of all there are.
        policiesAreComplete: !isAddress,
        removed: isAddress ? removed : [],
        removedPolicies: isAddress ? [] : removed,
      },
      problems: rejected.map(({ name, reasons }) => `${name || '(no name)'}: ${reasons.join('; ')}`),
      outcomes,
    };
  }

  /** The update of this push is in force: remember what we hold. */
  commit(response: Response, push: Push, bytes: number): void {
    this.#messages++;
    this.#messageAtMs = performance.now();
    this.#messageBytes += bytes;
    for (const name of response.removedResources ?? []) {
      this.#held.delete(name);
      this.#rejected.delete(name);
    }
    for (const { name, version, reasons, holdsPlace } of push.outcomes) {
      const isSound = reasons.length === 0;
      if (isSound) this.#rejected.delete(name);
      else this.#rejected.set(name, reasons.join('; '));
      // An empty version: the controller sends it again after a reconnect, or tells that it is gone.
      if (isSound || holdsPlace) this.#held.set(name, { version: isSound ? version : '', isSound });
    }
    if (push.problems.length === 0) this.#wasAccepted = true;
  }

  #readResource(resource: Resource, changes: Changes): Outcome {
    const name = resource.name ?? '';
    const outcome = { name, version: resource.version ?? '', holdsPlace: false };
    const { type_url: typeUrl, value } = resource.resource ?? {};
    if (name === '') return { ...outcome, reasons: ['has no name'] };
    if (typeUrl !== this.typeUrl)
      return { ...outcome, reasons: [`is of type ${JSON.stringify(typeUrl ?? '')}`] };
    const bytes = value ?? new Uint8Array();
    // What we cannot read holds its place, unless a sound version is in force: a policy denies, an address takes nothing.
    const mayHoldPlace = this.#held.get(name)?.isSound !== true;
    if (this.typeUrl === ADDRESS_TYPE_URL)
      return { ...outcome, ...readAddressInto(changes, name, bytes, mayHoldPlace) };
    const { policy, problems } = decodeAuthorization(name, bytes);
    const holdsPlace = problems.length > 0 && mayHoldPlace;
    if (problems.length === 0 || holdsPlace) changes.policies.push(policy);
    return { ...outcome, reasons: problems, holdsPlace };
  }
}

function readAddressInto(
  changes: Changes,
  name: string,
  bytes: Uint8Array,
  mayHoldPlace: boolean,
): Pick<Outcome, 'reasons' | 'holdsPlace'> {
  const decoded = decodeAddress(name, bytes);
  const isRejected = decoded.kind === 'rejected';
  const address = isRejected ? (mayHoldPlace ? decoded.place : null) : decoded;
  if (address?.kind === 'workload') changes.workloads.push(address.workload);
  if (address?.kind === 'service') changes.services.push(address.service);
  return { reasons: isRejected ? decoded.problems : [], holdsPlace: isRejected && address !== null };
}
