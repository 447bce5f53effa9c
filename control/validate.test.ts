import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { packageRoot } from '../native/package-root.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-validate-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const program = join(packageRoot(), 'dist/control/validate.js');

function validate(...documents: string[]) {
  const file = join(folder, 'a.yaml');
  writeFileSync(file, `${documents.join('\n---\n')}\n`);
  const { status, stdout } = spawnSync(process.execPath, [program, '--manifests', folder], {
    encoding: 'utf8',
  });
  return { status, lines: stdout.trimEnd().replaceAll(file, 'a.yaml').split('\n') };
}

const route =
  '{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: web, namespace: shop}}';
const pod =
  '{apiVersion: v1, kind: Pod, metadata: {name: old, namespace: shop, uid: u}, spec: {nodeName: a}, status: {podIPs: [{ip: 10.0.0.1}]}}';
const strict =
  '{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: shop}, spec: {mtls: {mode: STRICT}}}';

test('notices and reports are told, and nothing is wrong', () => {
  const { status, lines } = validate(
    route,
    pod,
    strict,
    '{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}',
  );
  expect(lines).toEqual([
    'notice: a.yaml:1: VirtualService shop/web: kind: networking.istio.io/v1 VirtualService is not read here: its routes are not in force: they need a waypoint',
    'note: PeerAuthentication/shop/default: takes pods outside of the mesh: shop/old: not enforced there: whatever connects to them gets in',
    '2 objects, 0 problems, 1 notices, 1 not in force as written',
  ]);
  expect(status).toBe(0);
});

test('problems end it with 1: misspelt kinds, kinds that restrict, pods that no agent could use', () => {
  const { status, lines } = validate(
    strict.replace('PeerAuthentication', 'PeerAuthentification'),
    '{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: jwt, namespace: shop}}',
    pod.replace(', uid: u', ''),
  );
  expect(lines.map((line) => line.split(': ').slice(0, 3).join(': '))).toEqual([
    'a.yaml:1: PeerAuthentification shop/default: kind',
    'a.yaml:3: RequestAuthentication shop/jwt: kind',
    'a.yaml:5: Pod shop/old: metadata.uid',
    '1 objects, 3 problems, 0 notices, 0 not in force as written',
  ]);
  expect(status).toBe(1);
});
