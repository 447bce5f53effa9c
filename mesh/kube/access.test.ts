import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { inClusterAccess } from './access.js';
import { Backoff } from './backoff.js';
import { kubeconfigAccess } from './kubeconfig.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-kube-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const base64 = (text: string) => Buffer.from(text).toString('base64');

function kubeconfig({ cluster = {}, user = {}, context = 'main' } = {}): string {
  const file = join(folder, 'config');
  const config = {
    'current-context': context,
    contexts: [{ name: 'main', context: { cluster: 'c', user: 'u' } }],
    clusters: [{ name: 'c', cluster: { server: 'https://10.0.0.1:6443/', ...cluster } }],
    users: [{ name: 'u', user }],
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}

describe('a kubeconfig', () => {
  test('with certificates inline and in files beside it', () => {
    writeFileSync(join(folder, 'ca.pem'), 'CA');
    const file = kubeconfig({
      cluster: { 'certificate-authority': 'ca.pem', 'tls-server-name': 'api' },
      user: { 'client-certificate-data': base64('CERTIFICATE'), 'client-key-data': base64('KEY') },
    });
    expect(kubeconfigAccess(file).read()).toEqual({
      server: 'https://10.0.0.1:6443',
      ca: 'CA',
      certificate: 'CERTIFICATE',
      key: 'KEY',
      token: null,
      serverName: 'api',
    });
  });

  test('with a token in a file, which is read each time', () => {
    writeFileSync(join(folder, 'token'), 'one\n');
    const access = kubeconfigAccess(kubeconfig({ user: { tokenFile: 'token' } }));
    expect(access.read().token).toBe('one');
    writeFileSync(join(folder, 'token'), 'two\n');
    expect(access.read().token).toBe('two');
  });

  test.each([
    [{ user: { exec: { command: 'aws' } } }, /"exec" is not supported/],
    [{ user: { username: 'u' } }, /"username"/],
    [{ user: { as: 'admin' } }, /"as"/],
    [{ cluster: { 'insecure-skip-tls-verify': true } }, /insecure-skip-tls-verify/],
    [{ cluster: { server: 'http://10.0.0.1:8080' } }, /https URL/],
    [{ cluster: { server: '10.0.0.1' } }, /https URL/],
    [{ context: 'other' }, /contexts has no "other"/],
    [{ context: '' }, /names no context/],
    [{ user: { tokenFile: 'nowhere' } }, /nowhere cannot be read/],
  ])('that cannot be followed is an error that says so: %j', (parts, said) => {
    const file = kubeconfig(parts);
    expect(() => kubeconfigAccess(file)).toThrow(expect.objectContaining({ code: 'KUBE_ACCESS' }));
    expect(() => kubeconfigAccess(file)).toThrow(said);
  });

  test.each(['{{{', '- 1', ''])('that is none: %j', (text) => {
    writeFileSync(join(folder, 'config'), text);
    expect(() => kubeconfigAccess(join(folder, 'config'))).toThrow(
      expect.objectContaining({ code: 'KUBE_ACCESS' }),
    );
  });
});

test('in a pod: server of the environment, token and CA as they are at the time', () => {
  const env = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' };
  writeFileSync(join(folder, 'ca.crt'), 'CA');
  writeFileSync(join(folder, 'token'), 'one\n');
  const access = inClusterAccess({ env, folder });
  expect(access.read()).toMatchObject({ server: 'https://[fd00::1]:443', ca: 'CA', token: 'one' });
  writeFileSync(join(folder, 'token'), 'two');
  expect(access.read().token).toBe('two');
  expect(() => inClusterAccess({ env: {} })).toThrow(/KUBERNETES_SERVICE_HOST/);
});

test('waits double up to a limit, are spread, and are never shorter than what the server asks for', () => {
  const backoff = (random: number) => new Backoff({ firstMs: 100, mostMs: 300 }, { random: () => random });
  const middle = backoff(0.5);
  expect([1, 2, 3, 4].map(() => middle.next())).toEqual([100, 200, 300, 300]);
  middle.reset();
  expect(middle.next()).toBe(100);
  expect([backoff(0).next(), backoff(0.999).next()]).toEqual([50, expect.closeTo(149.9)]);
  expect(backoff(0).next(5000)).toBe(5000);
});
