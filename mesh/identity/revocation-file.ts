import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { messageOf } from '../common/errors.js';
import { FilesWatch } from '../common/files-watch.js';
import type { Log } from '../log/index.js';
import { type Crl, isSignedBy, readCrls } from './crl.js';
import { IdentityError } from './errors.js';
import type { CertificateListener, IdentityMaterial } from './types.js';
import { readCertificate } from './x509-read.js';

export interface RevocationFileOptions {
  /** PEM (several lists, also the certificates of further issuers) or one list in DER. */
  readonly file: string;
  /** How often it is looked at. */
  readonly intervalMs: number;
}

export interface RevocationFileDeps {
  readonly log: Log;
  readonly nowMs: () => number;
  /** What is revoked from now on, as `revocationKey`s. */
  readonly onChange: (revoked: ReadonlySet<string>) => void;
}

/** Clocks of CAs may be ahead of ours. */
const CLOCK_SKEW_MS = 300_000;

/** A certificate in a set of revoked ones. */
export function revocationKey(issuer: Buffer, serial: string): string {
  return `${issuer.toString('base64')} ${serial}`;
}

/**
 * Follows a file of revocation lists. A list counts when a CA that this node trusts or uses has signed it (subscribe this to the certificate manager,
 * before all that shows certificates). A list with a wrong signature, from the future, older than the one in force, or expired is reported and the
 * last good one of its issuer stays; an expired one counts where there was none: it revokes no less for its age.
 */
export class RevocationFile implements CertificateListener {
  readonly #options: RevocationFileOptions;
  readonly #deps: RevocationFileDeps;
  readonly #issuers = new Map<string, Buffer>();
  readonly #watch: FilesWatch;
  /** By `signerOf`: a CA and the one that follows it may bear the same name. */
  #lists = new Map<string, Crl>();
  #revoked: ReadonlySet<string> = new Set();
  #problems: readonly string[] = [];

  /** Throws IdentityError BAD_CRL where the file cannot be read: without it nobody would know what is revoked. */
  constructor(options: RevocationFileOptions, deps: RevocationFileDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#watch = new FilesWatch({ files: [options.file], intervalMs: options.intervalMs }, () =>
      this.#load(),
    );
    this.#read();
  }

  /** Everything wrong with the file right now. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** In force. */
  get revokedCertificates(): number {
    return this.#revoked.size;
  }

  onCertificate(_identity: string, material: IdentityMaterial): void {
    const before = this.#issuers.size;
    for (const der of [...material.certificateChain.slice(1), ...material.trustBundle])
      this.#issuers.set(der.toString('base64'), der);
    if (this.#issuers.size > before) this.#load();
  }

  onGone(): void {}

  /** Looks now. */
  check(): void {
    this.#watch.check();
  }

  close(): void {
    this.#watch.close();
  }

  #load(): void {
    if (this.#issuers.size === 0) return; // nobody to have signed it, and no certificate to be shown
    const problems: string[] = [];
    const lists = new Map<string, Crl>();
    try {
      const { crls, issuers } = this.#read();
      for (const crl of crls) this.#take(crl, issuers, lists, problems);
    } catch (error) {
      problems.push(messageOf(error));
    }
    // While something of the file is bad, what it does not name may only be missing.
    if (problems.length > 0)
      for (const [issuer, crl] of this.#lists) if (!lists.has(issuer)) lists.set(issuer, crl);
    this.#report(problems);
    this.#put(lists);
  }

  #take(crl: Crl, issuers: readonly Buffer[], lists: Map<string, Crl>, problems: string[]): void {
    const key = signerOf(crl, issuers);
    const lastGood = key === null ? undefined : (lists.get(key) ?? this.#lists.get(key));
    const isExpired = crl.nextUpdateMs !== null && crl.nextUpdateMs < this.#deps.nowMs();
    const name = `list of ${iso(crl.thisUpdateMs)} with ${crl.serials.length} certificates`;
    if (key === null) problems.push(`${name}: no CA that is trusted here has signed it`);
    else if (crl.thisUpdateMs > this.#deps.nowMs() + CLOCK_SKEW_MS)
      problems.push(`${name}: is of the future`);
    else if (lastGood !== undefined && crl.thisUpdateMs < lastGood.thisUpdateMs)
      problems.push(`${name}: is older than the one in force, of ${iso(lastGood.thisUpdateMs)}`);
    else if (isExpired && lastGood !== undefined && !lastGood.signed.equals(crl.signed))
      problems.push(`${name}: has expired at ${iso(crl.nextUpdateMs!)}`);
    else {
      if (isExpired)
        problems.push(`${name}: has expired at ${iso(crl.nextUpdateMs!)}; it is used all the same`);
      lists.set(key, crl);
    }
  }

  /** Throws IdentityError BAD_CRL. */
  #read(): { crls: Crl[]; issuers: Buffer[] } {
    const { file } = this.#options;
    try {
      const bytes = readFileSync(file);
      const issuers = [...this.#issuers.values()];
      return { crls: readCrls(bytes), issuers: [...issuers, ...furtherIssuers(bytes, issuers)] };
    } catch (error) {
      throw new IdentityError('BAD_CRL', `${file}: ${messageOf(error)}`, { file }, error);
    }
  }

  #report(problems: readonly string[]): void {
    const { file } = this.#options;
    for (const reason of problems)
      if (!this.#problems.includes(reason))
        this.#deps.log.error(
          { file, reason },
          'revocation list problem; what was good before stays in force',
        );
    this.#problems = problems;
  }

  #put(lists: Map<string, Crl>): void {
    this.#lists = lists;
    const revoked = new Set<string>();
    for (const { issuer, serials } of lists.values())
      for (const serial of serials) revoked.add(revocationKey(issuer, serial));
    const isSame = revoked.size === this.#revoked.size && [...revoked].every((key) => this.#revoked.has(key));
    if (isSame) return;
    this.#revoked = revoked;
    this.#deps.log.info({ revoked: revoked.size }, 'revocation list in force');
    this.#deps.onChange(revoked);
  }
}

/** Name and key of the one among these certificates that has signed the list; null: none has. */
function signerOf(crl: Crl, issuers: readonly Buffer[]): string | null {
  const signer = issuers.find((issuer) => isSignedBy(crl, issuer));
  if (signer === undefined) return null;
  const { subject, publicKey } = readCertificate(signer);
  return `${subject.toString('base64')} ${publicKey.toString('base64')}`;
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/** Issuers that stand in the file, as far as one that is known has issued them. */
function furtherIssuers(bytes: Buffer, known: readonly Buffer[]): Buffer[] {
  const anchors = known.map((der) => new X509Certificate(der));
  const blocks = [...bytes.toString('latin1').matchAll(CERTIFICATE)].map(([pem]) => new X509Certificate(pem));
  return blocks
    .filter((one) =>
      anchors.some((anchor) => anchor.ca && one.checkIssued(anchor) && one.verify(anchor.publicKey)),
    )
    .map(({ raw }) => raw);
}

function iso(unixMs: number): string {
  return new Date(unixMs).toISOString();
}
