import { type CertificateManager, parseSpiffeId } from '../mesh/identity/index.js';
import { identityOf, type Store } from '../mesh/store/index.js';
import type { LocalPod } from './capture/index.js';

export interface LocalIdentitiesOptions {
  /** Of pods that the controller has not described yet. */
  readonly trustDomain: string;
}

/** A certificate for the same account of another trust domain is as good as none: but better, while the new one is being fetched. */
function isSameAccount(a: string, b: string): boolean {
  return a.slice(a.indexOf('/ns/')) === b.slice(b.indexOf('/ns/'));
}

/** Which identities this node needs certificates for: those of its captured pods, as the store names them. */
export class LocalIdentities {
  readonly #options: LocalIdentitiesOptions;
  readonly #store: Store;
  readonly #certificates: CertificateManager;
  readonly #pods = new Map<string, LocalPod>();
  #wanted: ReadonlySet<string> = new Set();
  #queued: NodeJS.Immediate | null = null;

  constructor(
    options: LocalIdentitiesOptions,
    deps: { readonly store: Store; readonly certificates: CertificateManager },
  ) {
    deps.certificates.subscribe({ onCertificate: () => this.refresh(), onGone: () => {} });
    this.#options = options;
    this.#store = deps.store;
    this.#certificates = deps.certificates;
  }

  /** Its certificate is wanted from the end of this turn on: pods that start together are looked at once. Throws IdentityError BAD_SPIFFE_ID. */
  add(pod: LocalPod): void {
    const identity = this.identityOf(pod);
    parseSpiffeId(identity);
    this.#pods.set(pod.uid, pod);
    if (this.#wanted.has(identity)) return;
    this.#queued ??= setImmediate(() => this.refresh());
  }

  remove(uid: string): void {
    this.#pods.delete(uid);
    this.refresh();
  }

  /** The store or the pods changed: fetch what is new, forget what nobody has any more. */
  refresh(): void {
    if (this.#queued !== null) clearImmediate(this.#queued);
    this.#queued = null;
    const wanted = new Set([...this.#pods.values()].map((pod) => this.identityOf(pod)));
    for (const identity of wanted) if (!this.#wanted.has(identity)) this.#certificates.prefetch(identity);
    for (const identity of this.#wanted) {
      if (wanted.has(identity)) continue;
      if (this.#isReplacedBy(wanted, identity)) wanted.add(identity);
      else this.#certificates.forget(identity);
    }
    this.#wanted = wanted;
  }

  /** Its pods have another trust domain now, and no certificate of that yet: until then this one is shown. */
  #isReplacedBy(wanted: ReadonlySet<string>, identity: string): boolean {
    if (this.#certificates.current(identity) === null) return false;
    return [...wanted].some(
      (other) => isSameAccount(other, identity) && this.#certificates.current(other) === null,
    );
  }

  has(identity: string): boolean {
    return this.#wanted.has(identity);
  }

  /** As the store has it; before that, as the pod's manifest has it. */
  identityOf(pod: LocalPod): string {
    const workload = this.#store.workloadOfPod(pod.namespace, pod.name, pod.serviceAccount);
    return identityOf(workload ?? { ...pod, trustDomain: this.#options.trustDomain });
  }
}
