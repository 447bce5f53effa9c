// Bill of materials of the image, CycloneDX 1.5: `sbom.mjs package-lock.json VERSIONS`, the latter with a Debian package a line (name, version,
// architecture). The same inputs give the same bytes: no time, no serial number.
import { readFileSync } from 'node:fs';

const [, , lockFile, debianFile] = process.argv;
const lock = JSON.parse(readFileSync(lockFile, 'utf8'));
const own = lock.packages[''];
const npm = Object.entries(lock.packages)
  .filter(([path, entry]) => path !== '' && !entry.dev && !entry.devOptional && isThere(path))
  .map(([path, { version, license, integrity }]) => {
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`;
    const content = integrity && Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex');
    return {
      ...{ type: 'library', 'bom-ref': purl, name, version, purl },
      ...(license ? { licenses: [{ expression: license }] } : {}),
      ...(content ? { hashes: [{ alg: 'SHA-512', content }] } : {}),
    };
  });
const debian = readFileSync(debianFile, 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => {
    const [name, version, arch] = line.split(' ');
    const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${arch}`;
    return { type: 'library', 'bom-ref': purl, name, version, purl };
  });
const node = process.versions.node;
const purl = `pkg:generic/node@${node}`;
const runtime = [
  { type: 'platform', 'bom-ref': purl, name: 'node', version: node, purl },
  { type: 'library', 'bom-ref': `pkg:generic/openssl@${process.versions.openssl}`, name: 'openssl', version: process.versions.openssl, purl: `pkg:generic/openssl@${process.versions.openssl}` },
];
const component = { type: 'application', name: own.name ?? lock.name, version: own.version ?? lock.version };
const bom = { bomFormat: 'CycloneDX', specVersion: '1.5', version: 1, metadata: { component } };
process.stdout.write(`${JSON.stringify({ ...bom, components: [...runtime, ...debian, ...npm] }, null, 2)}\n`);

/** Optional packages of other platforms are in the lock file, not in the image. */
function isThere(path) {
  try {
    readFileSync(`${path}/package.json`);
    return true;
  } catch {
    return false;
  }
}
