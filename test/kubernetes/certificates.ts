import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A key and its certificate, as PEM files. */
export interface Credentials {
  readonly certificateFile: string;
  readonly keyFile: string;
}

export interface CertificateRequest {
  /** Kubernetes takes the common name for the user's name, */
  readonly user: string;
  /** and organizations for groups. */
  readonly groups?: readonly string[];
  /** Subject alternative names, `DNS:…` and `IP:…`; with them the certificate also serves. */
  readonly names?: readonly string[];
}

const EC_KEY = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'];
const DAYS = 30;
const DAYS_BEFORE = 2;

/** The cluster's certificate authority, by the openssl command. All files are in its folder. */
export class ClusterCa {
  readonly folder: string;
  readonly certificateFile: string;
  readonly keyFile: string;

  constructor(folder: string) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.certificateFile = join(folder, 'ca.pem');
    this.keyFile = join(folder, 'ca.key');
    this.keyPair('ca');
    writeFileSync(join(folder, 'index.txt'), '');
    writeFileSync(join(folder, 'config'), configOf(folder));
    const extensions = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign'];
    this.#sign('ca', '/CN=kubernetes', extensions, ['-selfsign', '-keyfile', this.keyFile]);
  }

  get certificate(): string {
    return readFileSync(this.certificateFile, 'utf8');
  }

  /** Makes `<name>.key` and `<name>.pub`. */
  keyPair(name: string): { readonly keyFile: string; readonly publicKeyFile: string } {
    const [keyFile, publicKeyFile] = [join(this.folder, `${name}.key`), join(this.folder, `${name}.pub`)];
    openssl('genpkey', ...EC_KEY, '-out', keyFile);
    openssl('pkey', '-in', keyFile, '-pubout', '-out', publicKeyFile);
    return { keyFile, publicKeyFile };
  }

  /** Issues a certificate to `<name>.pem`, with a new key. */
  issue(name: string, request: CertificateRequest): Credentials {
    const { keyFile } = this.keyPair(name);
    const certificateFile = join(this.folder, `${name}.pem`);
    const names = request.names ?? [];
    const lines = [
      'basicConstraints=critical,CA:FALSE',
      'keyUsage=critical,digitalSignature',
      `extendedKeyUsage=clientAuth${names.length > 0 ? ',serverAuth' : ''}`,
      ...(names.length > 0 ? [`subjectAltName=${names.join(',')}`] : []),
    ];
    const subject = `${(request.groups ?? []).map((group) => `/O=${group}`).join('')}/CN=${request.user}`;
    this.#sign(name, subject, lines, ['-cert', this.certificateFile, '-keyfile', this.keyFile]);
    return { certificateFile, keyFile };
  }

  /** By `openssl ca`, because nothing else sets the first day: a node's clock may be late. */
  #sign(name: string, subject: string, extensions: readonly string[], signer: readonly string[]): void {
    const file = (suffix: string): string => join(this.folder, `${name}.${suffix}`);
    writeFileSync(file('ext'), `${extensions.join('\n')}\n`);
    openssl('req', '-new', '-key', file('key'), '-subj', subject, '-out', file('csr'));
    const dates = ['-startdate', dateIn(-DAYS_BEFORE), '-enddate', dateIn(DAYS)];
    const files = ['-in', file('csr'), '-out', file('pem'), '-extfile', file('ext')];
    const own = ['-batch', '-notext', '-preserveDN', '-config', join(this.folder, 'config')];
    openssl('ca', ...own, ...dates, ...files, ...signer);
  }
}

/** As `openssl ca` takes it. */
function dateIn(days: number): string {
  return new Date(Date.now() + days * 86_400_000).toISOString().replace(/[-T:]|\.\d+/g, '');
}

function configOf(folder: string): string {
  return `[ca]
default_ca=own
[own]
database=${folder}/index.txt
new_certs_dir=${folder}
rand_serial=yes
unique_subject=no
default_md=sha256
policy=any
[any]
organizationName=optional
commonName=supplied
`;
}

/** A kubeconfig file for the user at `server`, with everything inside it. */
export function writeKubeconfig(
  path: string,
  server: string,
  caFile: string,
  credentials: Credentials,
): string {
  const data = (file: string): string => readFileSync(file).toString('base64');
  const user = {
    'client-certificate-data': data(credentials.certificateFile),
    'client-key-data': data(credentials.keyFile),
  };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'culvert', cluster: { server, 'certificate-authority-data': data(caFile) } }],
    users: [{ name: 'user', user }],
    contexts: [{ name: 'culvert', context: { cluster: 'culvert', user: 'user' } }],
    'current-context': 'culvert',
  };
  // kubectl reads JSON, too: it is YAML.
  writeFileSync(path, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
  return path;
}

function openssl(...args: string[]): string {
  return execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
