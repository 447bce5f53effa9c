import { messageOf } from '../../mesh/common/errors.js';
import { derToPem, generateKeyPair, issueCertificate } from '../../mesh/identity/index.js';
import { type ApiClient, BACKOFF_DEFAULTS, Backoff } from '../../mesh/kube/index.js';
import { type Leadership, WRITE_QUEUE_DEFAULTS, WriteQueue } from '../../mesh/kube-write/index.js';
import type { Log } from '../../mesh/log/index.js';
import { publishCaBundle } from './configuration.js';
import { AdmissionServer, type AdmissionServerOptions, type ServingPair } from './server.js';
import type { Verdict } from './types.js';
import { loadWebhookCa, type WebhookCa } from './webhook-ca.js';

export interface WebhookOptions extends AdmissionServerOptions {
  /** The controller's own namespace: the Secret is there. */
  readonly namespace: string;
  /** Of the ValidatingWebhookConfiguration. */
  readonly configuration: string;
  /** That API servers reach us by. */
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
}

export interface WebhookDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly leadership: Leadership;
  readonly onVerdict: (verdict: Verdict) => void;
  readonly log: Log;
}

const LIFETIME_MS = 24 * 3_600_000;
const BACKDATE_MS = 60_000;
/** How often Secret and configuration are looked at: others may write them. */
const LOOK_MS = 30_000;
/** An authority that was replaced is trusted for so long: other replicas go over within LOOK_MS. */
const OVERLAP_MS = 600_000;

interface Trusted {
  readonly ca: WebhookCa;
  /** When another came. */
  replacedMs: number | null;
}

/**
 * The validating webhook with its certificates: an authority of its own in a Secret, shared by the replicas; each issues itself a certificate for a day, in
 * memory; the leader tells API servers whom to trust.
 */
export class Webhook {
  readonly #options: WebhookOptions;
  readonly #deps: WebhookDeps;
  readonly #queue: WriteQueue;
  readonly #trusted: Trusted[];
  #server: AdmissionServer | null;
  #issuedMs: number;
  #timer: NodeJS.Timeout | null;
  #unsubscribe: () => void;
  #trouble: string;
  #isStopped: boolean;

  constructor(options: WebhookOptions, deps: WebhookDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#queue = new WriteQueue(WRITE_QUEUE_DEFAULTS, { write: () => this.#publish(), log: deps.log });
    this.#trusted = [];
    this.#server = null;
    this.#issuedMs = 0;
    this.#timer = null;
    this.#unsubscribe = () => {};
    this.#trouble = '';
    this.#isStopped = false;
  }

  /** '' once it listens; else what is awaited. */
  get pending(): string {
    if (this.#server !== null) return '';
    return this.#trouble === '' ? 'webhook' : `webhook: ${this.#trouble}`;
  }

  /** Resolves when it listens, however long the API server takes. Rejects where it cannot listen. */
  async start(): Promise<void> {
    const backoff = new Backoff(BACKOFF_DEFAULTS, { random: Math.random });
    while (!this.#isStopped && this.#trusted.length === 0) {
      try {
        await this.#load();
      } catch (error) {
        this.#report(error);
        await new Promise((resolve) => setTimeout(resolve, backoff.next()).unref());
      }
    }
    if (this.#isStopped) return;
    const { onVerdict, log, leadership } = this.#deps;
    const server = await AdmissionServer.start(this.#options, { pair: this.#issue(), onVerdict, log });
    if (this.#isStopped) return await server.close();
    this.#server = server;
    this.#unsubscribe = leadership.subscribe({
      onLead: () => this.#queue.add('caBundle'),
      onFollow: () => this.#queue.clear(),
    });
    this.#timer = setInterval(() => void this.#look(), LOOK_MS);
    log.info({ port: this.#server.port }, 'webhook listens');
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#unsubscribe();
    this.#queue.clear();
    await this.#server?.close();
  }

  async #look(): Promise<void> {
    try {
      const isNew = await this.#load();
      if (isNew || Date.now() - this.#issuedMs > LIFETIME_MS / 2) this.#server!.pair = this.#issue();
      this.#trouble = '';
    } catch (error) {
      this.#report(error);
    }
    if (this.#deps.leadership.isLeader) this.#queue.add('caBundle');
  }

  /** True: there is another authority than before. */
  async #load(): Promise<boolean> {
    const ca = await loadWebhookCa(this.#deps.client, this.#options.namespace, Date.now());
    const current = this.#trusted[0];
    while (isOver(this.#trusted.at(-1))) this.#trusted.pop();
    if (current?.ca.certificate.equals(ca.certificate) === true) return false;
    if (current !== undefined) current.replacedMs = Date.now();
    this.#trusted.unshift({ ca, replacedMs: null });
    return true;
  }

  #issue(): ServingPair {
    const { dnsNames, ipAddresses } = this.#options;
    const keys = generateKeyPair();
    this.#issuedMs = Date.now();
    const der = issueCertificate(
      {
        publicKey: keys.publicKey,
        commonName: 'culvert-controller',
        dnsNames,
        ipAddresses,
        notBeforeMs: this.#issuedMs - BACKDATE_MS,
        notAfterMs: this.#issuedMs + LIFETIME_MS,
      },
      this.#trusted[0]!.ca,
    );
    const key = keys.privateKey.export({ type: 'pkcs8', format: 'pem' });
    return { cert: derToPem(der, 'CERTIFICATE'), key: String(key) };
  }

  async #publish(): Promise<boolean> {
    const { client, leadership, log } = this.#deps;
    if (!leadership.isLeader) return false;
    const bundle = this.#trusted.map(({ ca }) => derToPem(ca.certificate, 'CERTIFICATE')).join('');
    const isNew = await publishCaBundle(client, this.#options.configuration, bundle);
    if (isNew) log.info({ configuration: this.#options.configuration }, 'webhook authority published');
    return isNew;
  }

  #report(error: unknown): void {
    const reason = messageOf(error);
    if (reason !== this.#trouble) this.#deps.log.warn({ reason }, 'webhook authority cannot be read');
    this.#trouble = reason;
  }
}

function isOver(trusted: Trusted | undefined): boolean {
  return trusted !== undefined && trusted.replacedMs !== null && Date.now() - trusted.replacedMs > OVERLAP_MS;
}
