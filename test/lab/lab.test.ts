import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { findCgroup2, Lab, type LabNode, type LabPod, processesIn, waitFor } from './index.js';

const HTTP_ECHO = join(packageRoot(), 'dist/test/support/http-echo.js');

describe('Lab', () => {
  let lab: Lab;
  let a: LabNode;
  let b: LabNode;
  let client: LabPod;
  let server: LabPod;

  beforeAll(async () => {
    lab = await Lab.create();
    a = await lab.node('a');
    b = await lab.node('b', { cgroupDriver: 'cgroupfs' });
    [client, server] = await Promise.all([
      a.pod('client', { labels: { app: 'client' } }),
      b.pod('server', { namespace: 'shop', serviceAccount: 'cart', qos: 'guaranteed' }),
    ]);
    await server.spawn([process.execPath, HTTP_ECHO, '8080']).waitForOutput(/listening/);
  }, 60_000);

  afterAll(() => lab?.close());

  test.each(['ip', 'ip6'] as const)(
    'a pod reaches a pod of the other node by %s, with its own address',
    async (family) => {
      const host = family === 'ip' ? server.ip : `[${server.ip6}]`;
      const answer = JSON.parse(await client.output(['curl', '-sS', '-m', '10', `http://${host}:8080/x`]));
      expect(answer).toMatchObject({ method: 'GET', path: '/x', peer: { address: client[family] } });
    },
  );

  test('nodes and host-network pods reach pods', async () => {
    const host = await a.pod('host', { hostNetwork: true });
    const url = `http://${server.ip}:8080/`;
    expect(JSON.parse(await host.output(['curl', '-sS', url])).peer.address).toBe(a.ip);
    expect(JSON.parse(await b.output(['curl', '-sS', url])).peer.address).toBe('10.244.2.1');
    expect((await b.kubelet(['curl', '-sS', url])).code).toBe(0);
  });

  test('a process is in the pod cgroup before it runs', async () => {
    const self = await server.output(['cat', '/proc/self/cgroup']);
    const unified = self.split('\n').find((line) => line.startsWith('0::'))!;
    expect(unified).toContain(`/b/kubepods/pod${server.uid}/`);
    const other = await client.output(['cat', '/proc/self/cgroup']);
    const name = `kubepods-besteffort-pod${client.uid.replaceAll('-', '_')}.slice`;
    expect(other).toContain(`/a/kubepods.slice/kubepods-besteffort.slice/${name}/cri-containerd-`);
    expect(processesIn(client.cgroup)).toContain(client.pausePid);
  });

  test('the command sees cgroups and an untouched mount namespace', async () => {
    expect((await client.exec(['test', '-e', lab.names.cgroup])).code).toBe(0);
    expect(await client.output(['readlink', '/proc/self/ns/mnt'])).toBe(
      execFileSync('readlink', ['/proc/self/ns/mnt'], { encoding: 'utf8' }),
    );
  });

  test('a capture on the wire holds the bytes that crossed it', async () => {
    const capture = await a.capture({ filter: 'tcp port 8080' });
    await client.output(['curl', '-sS', `http://${server.ip}:8080/visible-mark`]);
    await capture.stop();
    expect(capture.contains('visible-mark')).toBe(true);
    expect(capture.contains('never-sent')).toBe(false);
    expect(await capture.count('tcp[tcpflags] & tcp-syn != 0')).toBe(2);
  });

  test('manifests describe the pods', () => {
    const manifest = readFileSync(join(lab.manifests.path, 'pod.shop.server.yaml'), 'utf8');
    expect(manifest).toContain(`uid: ${server.uid}`);
    expect(manifest).toContain(`podIP: ${server.ip}`);
    expect(manifest).toContain('serviceAccountName: cart');
  });

  test('an IPv4-only pod has no IPv6 at all', async () => {
    const pod = await a.pod('four', { families: 'ipv4' });
    expect(await pod.output(['ip', '-6', 'addr'])).toBe('');
    expect(await pod.output(['curl', '-sS', `http://${server.ip}:8080/`])).toContain(pod.ip);
    await pod.delete();
  });

  test('a deleted pod leaves nothing', async () => {
    const pod = await a.pod('gone');
    const sleeper = pod.spawn(['sh', '-c', 'echo up; exec sleep 1000']);
    await sleeper.waitForOutput(/up/);
    await pod.delete();
    expect((await sleeper.ended).signal).toBe('SIGKILL');
    expect(existsSync(pod.cgroup)).toBe(false);
    expect(existsSync(`/run/netns/${pod.netns}`)).toBe(false);
    expect(existsSync(join(lab.manifests.path, 'pod.default.gone.yaml'))).toBe(false);
  });

  test('a failing command tells what it printed', async () => {
    const command = ['sh', '-c', 'echo no luck >&2; exit 3'];
    expect(await client.exec(command)).toMatchObject({ code: 3, stderr: 'no luck\n' });
    await expect(client.output(command)).rejects.toThrow(/code 3[\s\S]*no luck/);
    await expect(client.spawn(command).waitForOutput(/ready/)).rejects.toThrow(/ended before/);
  });
});

describe('the end of a lab', () => {
  test('close removes processes, namespaces, cgroups and files', async () => {
    const lab = await Lab.create();
    const pod = await (await lab.node('a')).pod('p');
    pod.spawn(['sleep', '1000']);
    lab.close();
    lab.close();
    expect(leftovers(lab.names.id)).toEqual([]);
  }, 30_000);

  test('a killed owner leaves nothing either', async () => {
    const index = join(packageRoot(), 'dist/test/lab/index.js');
    const script = `
      const { Lab } = await import(${JSON.stringify(index)});
      const lab = await Lab.create();
      const pod = await (await lab.node('a')).pod('p');
      pod.spawn(['sleep', '1000']);
      console.log(lab.names.id);
    `;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(owner.stdout, 'data')) as [Buffer];
    const id = line.toString().trim();
    expect(leftovers(id)).not.toEqual([]);
    owner.kill('SIGKILL');
    await waitFor('the reaper', () => leftovers(id).length === 0);
  }, 30_000);
});

function leftovers(id: string): string[] {
  const netns = readdirSync('/run/netns').filter((name) => name.startsWith(`cv${id}-`));
  const folders = [`/run/culvert-lab/${id}`, join(findCgroup2(), `culvert-lab-${id}`)].filter((path) =>
    existsSync(path),
  );
  return [...netns, ...folders];
}
