import { existsSync, mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { encodeCapturedPod, encodeU64, VerifierError } from '../../native/bpf/index.js';
import { cgroupId, cgroupLevel, cgroupRoot } from '../../native/net/index.js';
import { Lab, type LabNode, type LabPod, waitFor } from '../lab/index.js';
import { Datapath, objectPath } from './support/datapath.js';
import { python } from './support/python.js';

/** Pins, links and maps as the agent adopts them after a restart. */
describe('pins and links', () => {
  let lab: Lab;
  let node: LabNode;
  let pod: LabPod;
  let datapath: Datapath;
  let pins: string;

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    pod = await node.pod('pod');
    datapath = new Datapath(node);
    pins = node.bpffsDir;
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  test('a bpffs is mounted where there is none, once', () => {
    expect(datapath.bpf.ensureBpffs(pins)).toBe(true);
    expect(datapath.bpf.ensureBpffs(pins)).toBe(false);
    const sub = join(pins, 'sub');
    expect(datapath.bpf.ensureBpffs(sub)).toBe(false);
    rmdirSync(sub);
  });

  test('a pinned map is the same map to who opens it, and to an object that reuses it', () => {
    const { bpf } = datapath;
    const path = join(pins, 'captured');
    datapath.map('captured').pin(path);
    const key = encodeU64(42n);
    const value = encodeCapturedPod({ ipv4: '10.0.0.1', ipv6: null });
    datapath.map('captured').update(key, value);
    using opened = bpf.openPinnedMap(path)!;
    expect(opened.lookup(key)).toEqual(value);
    expect(opened.info).toEqual(datapath.map('captured').info);
    using again = bpf.load(objectPath('connect'), { reuseMaps: { captured: opened } });
    expect(again.map('captured').info.id).toBe(opened.info.id);
    expect(again.map('callers').info.id).not.toBe(datapath.map('callers').info.id);
    opened.delete(key);
    expect(bpf.openPinnedMap(join(pins, 'nothing'))).toBeNull();
    expect(() => bpf.openPinnedLink(path)).toThrow(/kind=link: EINVAL/);
    rmSync(path);
  });

  test('a map of another shape, an unknown map or variable, is not taken', () => {
    const { bpf } = datapath;
    const load = (options: Parameters<typeof bpf.load>[1]) => () =>
      bpf.load(objectPath('connect'), options).close();
    expect(load({ reuseMaps: { captured: datapath.map('callers') } })).toThrow(/reuse map.*captured: EINVAL/);
    expect(load({ reuseMaps: { other: datapath.map('callers') } })).toThrow(/other: ENOENT/);
    expect(load({ rodata: { nothing: 1 } })).toThrow(/nothing: ENOENT/);
    expect(load({ rodata: { host_netns_cookie: 1 } })).toThrow(/host_netns_cookie: EINVAL/);
  });

  test('an object that is none tells why', () => {
    expect(() => datapath.bpf.load('/dev/null')).toThrow(VerifierError);
    expect(() => datapath.bpf.load('/run/nothing.bpf.o')).toThrow(/ENOENT/);
  });

  test('a pinned link outlives its owner, and is gone with its pin', () => {
    const { bpf, objects } = datapath;
    const cgroup = join(node.kubepods, 'owned');
    mkdirSync(cgroup);
    const path = join(pins, 'link');
    const program = objects.connect.program('connect4');
    const link = bpf.attachCgroup(program, cgroup);
    link.pin(path);
    link.close();
    const names = () => bpf.attached(cgroup, program.attachType).map((one) => one.name);
    expect(names()).toEqual(['connect4']);
    using adopted = bpf.openPinnedLink(path)!;
    expect(adopted.info()).toMatchObject({
      type: 'cgroup',
      target: cgroupId(cgroup),
      attachType: program.attachType,
    });
    expect(adopted.info().programId).toBe(program.info().id);
    rmSync(path);
    expect(names()).toEqual(['connect4']);
    adopted.close();
    expect(names()).toEqual([]);
    rmdirSync(cgroup);
  });

  test('a pinned link whose cgroup is gone has no target', async () => {
    const { bpf, objects } = datapath;
    const cgroup = join(node.kubepods, 'gone');
    mkdirSync(cgroup);
    const path = join(pins, 'gone');
    using link = bpf.attachCgroup(objects.sockops.program('sock_ops'), cgroup);
    link.pin(path);
    rmdirSync(cgroup);
    mkdirSync(cgroup);
    using adopted = bpf.openPinnedLink(path)!;
    expect(adopted.info().target).not.toBe(cgroupId(cgroup));
    // the kernel lets go of a cgroup a little later, and only when its last socket is closed
    await waitFor('the link to lose its target', () => adopted.info().target === 0n);
    rmSync(path);
    rmdirSync(cgroup);
  });

  test('a pinned link whose network namespace is gone has no target', async () => {
    const { bpf } = datapath;
    const short = await node.pod('short');
    const { link } = datapath.captureInbound(short, { empty: true });
    link.pin(join(pins, 'netns'));
    await short.delete();
    using adopted = bpf.openPinnedLink(join(pins, 'netns'))!;
    expect(adopted.info()).toMatchObject({ type: 'netns', target: 0n });
    rmSync(join(pins, 'netns'));
  });

  test('detach takes effect though the pin stays', () => {
    const { bpf, objects } = datapath;
    const program = objects.connect.program('connect6');
    using link = bpf.attachCgroup(program, node.kubepods);
    link.pin(join(pins, 'detached'));
    link.detach();
    expect(bpf.attached(node.kubepods, program.attachType)).toEqual([]);
    expect(link.info().target).toBe(0n);
    rmSync(join(pins, 'detached'));
  });

  test('an update has no moment without a program', async () => {
    const { bpf, objects } = datapath;
    const rodata = { parent_cgroup: cgroupId(node.kubepods), parent_level: cgroupLevel(node.kubepods) };
    using next = bpf.load(objectPath('connect'), { rodata });
    const [present, other] = [objects.connect.program('connect4'), next.program('connect4')];
    using link = bpf.attachCgroup(present, node.kubepods);
    // nothing is listed in either: the pod is refused by both, and would only get through in between
    const client = pod.spawn(
      python(`
end, errors = time.time() + 1.5, {}
print('go', flush=True)
while time.time() < end:
    e = attempt(('192.0.2.7', 80), V4, 1); errors[e] = errors.get(e, 0) + 1
out(errors)`),
    );
    await client.waitForOutput(/go/);
    let swaps = 0;
    while (client.running) {
      link.updateProgram(++swaps % 2 === 0 ? present : other);
      if (swaps % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const { stdout } = await client.ended;
    const errors = JSON.parse(stdout.split('\n')[1]!);
    expect(Object.keys(errors)).toEqual(['EPERM']);
    expect(errors.EPERM).toBeGreaterThan(100);
    expect(swaps).toBeGreaterThan(20);
    expect(bpf.attached(node.kubepods, present.attachType)).toHaveLength(1);
  });

  test('closing everything leaves no trace', () => {
    const other = new Datapath(node).attach();
    const types = Object.values(other.objects).flatMap((object) =>
      [...object.programs.values()].map((p) => p.attachType),
    );
    expect(types.map((type) => other.bpf.attached(node.kubepods, type).length)).toEqual(types.map(() => 1));
    other.close();
    expect(types.map((type) => datapath.bpf.attached(node.kubepods, type).length)).toEqual(
      types.map(() => 0),
    );
  });

  test('cgroups are what BPF calls them', () => {
    expect(cgroupId(cgroupRoot())).toBe(1n);
    expect(cgroupLevel(cgroupRoot())).toBe(0);
    expect(cgroupLevel(pod.cgroup)).toBe(cgroupLevel(node.kubepods) + 2);
    expect(() => cgroupId('/tmp')).toThrow(/not a cgroup/);
    expect(() => cgroupLevel('/tmp')).toThrow(/not below/);
    expect(existsSync(cgroupRoot())).toBe(true);
  });

  test('the kernel has all that is needed', () => {
    expect(datapath.bpf.probe().filter((feature) => !feature.present)).toEqual([]);
  });
});
