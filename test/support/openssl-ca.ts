import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A certificate authority made and kept by the openssl command: an oracle that shares no code with ours. */
export class OpensslCa {
  readonly folder: string;
  readonly name: string;

  /** In a folder of its own below `where`. */
  constructor(where: string, name: string, parent: OpensslCa | null = null, keyArguments = EC_KEY) {
    this.folder = join(where, name);
    this.name = name;
    mkdirSync(this.folder, { recursive: true });
    writeFileSync(this.#file('index.txt'), '');
    writeFileSync(this.#file('crlnumber'), '01\n');
    writeFileSync(this.#file('extensions'), EXTENSIONS);
    writeFileSync(this.#file('config'), configOf(this.folder));
    openssl('genpkey', ...keyArguments, '-out', this.keyFile);
    this.#certify('ca', `/O=${name}`, this.keyFile, this.certificateFile, parent ?? this, parent === null);
  }

  get certificateFile(): string {
    return this.#file('cert.pem');
  }

  get keyFile(): string {
    return this.#file('key.pem');
  }

  get certificate(): string {
    return readFileSync(this.certificateFile, 'utf8');
  }

  get key(): string {
    return readFileSync(this.keyFile, 'utf8');
  }

  /** Issues a leaf for the identity and its key; gives the file's path. */
  leaf(identity: string, name: string): string {
    const [key, certificate] = [this.#file(`${name}.key`), this.#file(`${name}.pem`)];
    openssl('genpkey', ...EC_KEY, '-out', key);
    appendFileSync(this.#file('extensions'), `\n[${name}]\n${LEAF}subjectAltName=critical,URI:${identity}\n`);
    this.#certify(name, '/', key, certificate, this, false);
    return certificate;
  }

  /** From the next list on. */
  revoke(certificateFile: string): void {
    openssl('ca', '-config', this.#file('config'), '-revoke', certificateFile);
  }

  /** Serial as openssl prints it: of a certificate that is not at hand. */
  revokeSerial(serial: string): void {
    appendFileSync(this.#file('index.txt'), `R\t491231235959Z\t260101000000Z\t${serial}\tunknown\t/O=x\n`);
  }

  /** A list with everything that is revoked, PEM. */
  crl(...dates: string[]): string {
    const validity = dates.length > 0 ? dates : ['-crlhours', '1'];
    return openssl('ca', '-config', this.#file('config'), '-gencrl', ...validity);
  }

  #certify(
    section: string,
    subject: string,
    key: string,
    out: string,
    issuer: OpensslCa,
    isRoot: boolean,
  ): void {
    const request = openssl('req', '-new', '-key', key, '-subj', subject, '-config', this.#file('config'));
    writeFileSync(this.#file('request'), request);
    const signer = isRoot
      ? ['-signkey', key]
      : ['-CA', issuer.certificateFile, '-CAkey', issuer.keyFile, '-CAcreateserial'];
    const extensions = ['-extfile', this.#file('extensions'), '-extensions', section];
    openssl(
      'x509',
      '-req',
      '-in',
      this.#file('request'),
      '-sha256',
      '-days',
      '2',
      ...signer,
      ...extensions,
      '-out',
      out,
    );
  }

  #file(name: string): string {
    return join(this.folder, name);
  }
}

const EC_KEY = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'];
export const RSA_KEY = ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'];

const EXTENSIONS = `[ca]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
`;
const LEAF = `basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
authorityKeyIdentifier=keyid
`;

function configOf(folder: string): string {
  return `[req]
distinguished_name=name
prompt=no
[name]
[ca]
default_ca=own
[own]
database=${folder}/index.txt
crlnumber=${folder}/crlnumber
certificate=${folder}/cert.pem
private_key=${folder}/key.pem
default_md=sha256
default_crl_hours=1
`;
}

function openssl(...args: string[]): string {
  return execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
