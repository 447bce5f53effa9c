import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** PEM files of a pair of proxies; all keys are ECDSA P-256. */
export interface Certificates {
  readonly ca: string;
  readonly client: KeyPair;
  readonly server: KeyPair;
}

export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
  /** Certificate and key in one file. */
  readonly both: string;
}

/** Makes a root and one certificate a side (subject alternative names: DNS `client` or `server`, and a SPIFFE URI) in `folder`. */
export function makeCertificates(folder: string): Certificates {
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  };
  const newKey = ['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl(...newKey, '-x509', '-subj', '/CN=bench root', '-days', '2', '-keyout', 'ca.key', '-out', 'ca.pem');
  const issue = (name: string): KeyPair => {
    const names = `subjectAltName=DNS:${name},URI:spiffe://cluster.local/ns/bench/sa/${name}`;
    writeFileSync(join(folder, `${name}.ext`), `${names}\nextendedKeyUsage=clientAuth,serverAuth\n`);
    openssl(...newKey, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    const issuer = [
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      `${name}.ext`,
    ];
    openssl('x509', '-req', '-in', `${name}.csr`, ...issuer, '-out', `${name}.pem`);
    const [certificate, key, both] = ['pem', 'key', 'both.pem'].map((end) =>
      join(folder, `${name}.${end}`),
    ) as [string, string, string];
    writeFileSync(both, readFileSync(certificate, 'utf8') + readFileSync(key, 'utf8'));
    return { certificate, key, both };
  };
  return { ca: join(folder, 'ca.pem'), client: issue('client'), server: issue('server') };
}
