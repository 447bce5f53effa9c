import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { createLog } from '../../mesh/log/index.js';
import { packageRoot } from '../../native/index.js';
import { CniInstaller, cniPlugin, uninstallPlugin } from './index.js';

const log = createLog({ level: 'silent', component: 'test' });
const plugin = join(packageRoot(), 'native/build', cniPlugin);
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-cni-'));
  mkdirSync(join(folder, 'net.d'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('the plugin, by the CNI protocol', () => {
  const previous = { cniVersion: '1.0.0', ips: [{ address: '10.0.0.5/24' }], dns: { search: ['a "}] b'] } };
  const config = (more: object = {}) => ({
    ...{ cniVersion: '1.0.0', name: 'pods', type: cniPlugin, pins: join(folder, 'pins') },
    ...{ exclude: ['kube-system', 'culvert-system'], prevResult: previous, ...more },
  });
  const run = (command: string | undefined, input: unknown, namespace = 'shop') => {
    const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=cart`;
    const env = { CNI_ARGS: args, ...(command === undefined ? {} : { CNI_COMMAND: command }) };
    const text = typeof input === 'string' ? input : JSON.stringify(input, null, 1);
    const { status, stdout } = spawnSync(plugin, [], { input: text, env, encoding: 'utf8' });
    return { status, answer: stdout === '' ? null : (JSON.parse(stdout) as Record<string, unknown>) };
  };

  test('ADD and CHECK fail while there are no pins, and say that it is to be tried again', () => {
    const refused = {
      status: 1,
      answer: { cniVersion: '1.0.0', code: 11, msg: expect.stringContaining('has not started') },
    };
    expect(run('ADD', config())).toMatchObject(refused);
    expect(run('CHECK', config())).toMatchObject(refused);
    // A file is no link, wherever it lies.
    mkdirSync(join(folder, 'pins/abi-1/links'), { recursive: true });
    for (const hook of ['connect4', 'connect6', 'hold_ingress'])
      writeFileSync(join(folder, 'pins/abi-1/links', hook), '');
    expect(run('ADD', config())).toMatchObject(refused);
  });

  test('pods of excluded namespaces come up: the result before it is handed on as it came', () => {
    for (const namespace of ['kube-system', 'culvert-system'])
      expect(run('ADD', config(), namespace)).toEqual({ status: 0, answer: previous });
    expect(run('CHECK', config(), 'kube-system')).toEqual({ status: 0, answer: null });
    for (const namespace of ['kube-syste', 'kube-systemx', ''])
      expect(run('ADD', config(), namespace).status).toBe(1);
  });

  test('VERSION, DEL, GC and STATUS are answered whatever the state', () => {
    expect(run('VERSION', config()).answer).toEqual({
      cniVersion: '1.1.0',
      supportedVersions: ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'],
    });
    for (const command of ['DEL', 'GC', 'STATUS'])
      expect(run(command, '')).toEqual({ status: 0, answer: null });
  });

  test.each<[string, string | undefined, unknown, number]>([
    ['no command', undefined, {}, 4],
    ['an unknown command', 'MAKE', {}, 4],
    ['no JSON', 'ADD', '{"cniVersion": "1.0.0", ', 6],
    ['an end too early', 'ADD', '{"a": [1, {"b": 2}', 6],
    ['something behind it', 'ADD', '{} {}', 6],
    ['brackets without an end', 'ADD', `{"a": ${'['.repeat(100_000)}`, 6],
    ['a string without an end', 'ADD', '{"a": "\\', 6],
    ['nothing', 'ADD', '', 6],
    ['no pins', 'ADD', { cniVersion: '1.0.0', prevResult: {} }, 7],
    ['no result before it', 'ADD', { cniVersion: '1.0.0', pins: '/x' }, 7],
  ])('%s is an error by its code', (_what, command, input, code) => {
    expect(run(command, input)).toMatchObject({ status: 1, answer: { code } });
  });

  test('needs nothing of the host', () => {
    expect(execFileSync('file', ['-b', plugin], { encoding: 'utf8' })).toMatch(/statically linked/);
  });
});

describe('the installer', () => {
  const bin = () => join(folder, 'bin');
  const net = (name: string) => join(folder, 'net.d', name);
  const write = (name: string, content: unknown) =>
    writeFileSync(net(name), JSON.stringify(content), { mode: 0o600 });
  const read = (name: string) =>
    JSON.parse(readFileSync(net(name), 'utf8')) as { plugins: { type: string }[] };
  const list = {
    cniVersion: '1.0.0',
    name: 'pods',
    plugins: [{ type: 'bridge', mtu: 1400 }, { type: 'portmap' }],
  };
  const make = () =>
    new CniInstaller(
      {
        binDir: bin(),
        confDir: join(folder, 'net.d'),
        pins: '/sys/fs/bpf/culvert',
        excludedNamespaces: ['kube-system'],
      },
      { log },
    );
  const entry = { type: cniPlugin, pins: '/sys/fs/bpf/culvert', exclude: ['kube-system'] };

  test('stands behind the others in the first list, once, and leaves the rest as it was; uninstalled, nothing of it is left', () => {
    write('20-other.conflist', list);
    write('10-pods.conflist', list);
    writeFileSync(net('05-broken.conflist'), '{');
    const installer = make();
    installer.start();
    const second = make(); // another agent, or the next start
    second.start();
    second.stop();
    expect(installer.trouble).toBe('');
    expect(read('10-pods.conflist')).toEqual({ ...list, plugins: [...list.plugins, entry] });
    expect(read('20-other.conflist')).toEqual(list);
    expect(statSync(net('10-pods.conflist')).mode & 0o777).toBe(0o600);
    expect(statSync(join(bin(), cniPlugin)).mode & 0o777).toBe(0o755);
    installer.uninstall();
    expect(read('10-pods.conflist')).toEqual(list);
    expect([existsSync(join(bin(), cniPlugin)), readdirSync(join(folder, 'net.d')).length]).toEqual([
      false,
      3,
    ]);
  });

  test('comes back when somebody writes the list anew, or moves it', async () => {
    const installer = make();
    installer.start();
    expect(installer.trouble).toMatch(/no network configuration yet/);
    const isThere = async () => {
      for (let i = 0; i < 200; i++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        if (read('10-pods.conflist').plugins.at(-1)?.type === cniPlugin && installer.trouble === '')
          return true;
      }
      return false;
    };
    write('10-pods.conflist', list);
    expect(await isThere()).toBe(true);
    write('10-pods.conflist', { ...list, plugins: [entry, { type: 'bridge' }] });
    expect(await isThere()).toBe(true);
    expect(read('10-pods.conflist').plugins).toEqual([{ type: 'bridge' }, entry]);
    installer.stop();
  }, 30_000);

  test('is taken away where no agent is left to do it; where nothing is, that is fine', () => {
    write('10-pods.conflist', list);
    const installer = make();
    installer.start();
    installer.stop();
    const folders = { binDir: bin(), confDir: join(folder, 'net.d') };
    expect(uninstallPlugin(folders)).toBe(1);
    expect(read('10-pods.conflist')).toEqual(list);
    expect(existsSync(join(bin(), cniPlugin))).toBe(false);
    expect(uninstallPlugin(folders)).toBe(0);
    expect(uninstallPlugin({ binDir: join(folder, 'none'), confDir: join(folder, 'none') })).toBe(0);
  });

  test('another that wants to be last too is let be, whatever the order of its fields', () => {
    const { type, ...rest } = entry;
    const plugins = [...list.plugins, { ...rest, type }, { type: 'tuning' }];
    write('10-pods.conflist', { ...list, plugins });
    const installer = make();
    installer.start();
    expect([installer.trouble, read('10-pods.conflist').plugins]).toEqual(['', plugins]);
    installer.uninstall();
    expect(read('10-pods.conflist').plugins).toEqual([...list.plugins, { type: 'tuning' }]);
  });

  test('a single configuration is not chained, and that is said', () => {
    write('10-pods.conf', { cniVersion: '0.4.0', name: 'pods', type: 'bridge' });
    const installer = make();
    installer.start();
    expect(installer.trouble).toMatch(/10-pods.conf is no list of plugins/);
    installer.stop();
  });
});
