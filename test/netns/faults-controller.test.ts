import { cpSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { type LabNode, type LabPod, type Manifest, waitFor } from '../lab/index.js';
import { cutOff, expectNothingLeft, type Footprint, restingFootprintOf } from './faults-harness.js';
import { appPort, EchoConnection, inClear, type MeshBed, makeMeshBed, talk } from './mesh-harness.js';

// What becomes of agents and their pods when the controller lies, is killed in the middle of a push, cannot write, or is out of reach.

jest.setTimeout(90_000); // the machine may be busy

describe('faults of the controller', () => {
  let bed: MeshBed;
  let before: Footprint[];
  let controlNode: LabNode;
  const to = () => ({ host: bed.server.ip, port: appPort });
  const agentOf = (side: number) => bed.mesh.agents[side]!;

  beforeAll(async () => {
    bed = await makeMeshBed();
    controlNode = bed.lab.nodes.find(({ name }) => name.startsWith('control'))!;
    await expectWorking();
    before = [await restingFootprintOf(agentOf(0)), await restingFootprintOf(agentOf(1))];
  }, 120_000);
  afterAll(() => bed?.[Symbol.dispose]());
  afterEach(async () => {
    await expectWorking();
    for (const side of [0, 1]) await expectNothingLeft(agentOf(side), before[side]!);
  }, 60_000);

  async function expectWorking(pod = bed.client): Promise<void> {
    const outcome = await talk(pod, { ...to(), line: 'count', bytes: 100_000, end: true });
    expect(outcome).toMatchObject({ ended: 'fin' });
    expect(JSON.parse(outcome.text)).toMatchObject({ bytes: 100_000 });
  }

  /** A pod of the client's node is in the mesh and served: the controller's word has come. It is deleted then. */
  async function expectNewPodServed(pod: LabPod, timeoutMs = 40_000): Promise<void> {
    const isServed = async () => (await talk(pod, { ...to(), line: 'peer' })).ended === 'fin';
    await waitFor(`${pod.name} to be served`, isServed, { timeoutMs });
    await pod.delete();
    await waitFor(`${pod.name} to be forgotten`, async () => (await agentOf(0).stateOf(pod)) === '');
  }

  const newPod = (name: string) => bed.nodes[0].pod(name, { namespace: 'shop', serviceAccount: name });

  test('garbage, unknown types, half a snapshot: what was good stays in force, the rest is refused with its reason', async () => {
    const echo = await EchoConnection.open(bed.client, to());
    await bed.mesh.controller.stop();
    const rogue = controlNode.spawn([
      ...['node', join(packageRoot(), 'dist/test/support/rogue-controller.js')],
      ...[bed.mesh.controllerState, controlNode.ip, '15012'],
    ]);
    const wire = await bed.nodes[0].capture({ filter: 'not port 15008' });
    const born = await newPod('born-with-a-rogue');
    try {
      await rogue.waitForOutput(new RegExp(`stream half-a-snapshot ${agentOf(0).node.ip}\n`), 60_000);
      await sleep(1_500);
      await expectWorking();
      await echo.say('with-a-rogue');
      const attempt = await talk(born, { ...to(), line: 'peer', timeoutMs: 8_000 });
      expect(attempt).toMatchObject({ ended: 'error', received: 0 });
    } finally {
      await rogue.stop('SIGKILL');
    }
    await wire.stop();
    for (const pod of [bed.client, born]) expect(await inClear(wire, pod)).toEqual([]);
    for (const name of ['istio_converted_static_strict', 'Kubernetes//Pod/shop/server'])
      expect(rogue.stdout).toMatch(new RegExp(`nack .*${name}`));
    const log = readFileSync(agentOf(0).logFile, 'utf8');
    for (const reason of ['larger than max', 'push of type type.googleapis.com/no.such.Thing'])
      expect(log).toContain(reason);
    await bed.mesh.restartController();
    await expectNewPodServed(born);
    await echo.say('and-without');
    await echo.close();
  });

  test('killed in the middle of pushes: agents hold all of it in the end', async () => {
    const names = Array.from({ length: 200 }, (_, i) => `many-${i}`);
    for (const [round, delayMs] of [40, 120].entries()) {
      bed.lab.manifests.apply(...names.map((name) => serviceEntry(name, `10.99.${round}.7`)));
      await sleep(delayMs);
      await bed.mesh.controller.stop('SIGKILL');
      await bed.mesh.restartController();
    }
    await waitFor(
      'the agent to hold all',
      async () => {
        const text = await agentOf(0).admin('/config_dump');
        return names.every((name) => text.includes(`"${name}.example"`)) && !text.includes('10.99.0.7');
      },
      { timeoutMs: 40_000 },
    );
    for (const name of names) bed.lab.manifests.delete('ServiceEntry', name, 'shop');
  });

  test('an agent that cannot be heard (its packets are dropped one way) goes on with what it knows', async () => {
    const mend = await cutOff(bed.nodes[1], controlNode.ip, 'out');
    await bed.mesh.controller.stop();
    await bed.mesh.restartController();
    const late = await bed.nodes[1].pod('late', { namespace: 'shop', serviceAccount: 'late' });
    await bed.mesh.waitUntilCaptured([late]);
    expect(await talk(late, { ...to(), line: 'peer', timeoutMs: 8_000 })).toMatchObject({ received: 0 });
    await expectWorking();
    await mend();
    const isServed = async () => (await talk(late, { ...to(), line: 'peer' })).ended === 'fin';
    await waitFor('it to hear of its pod', isServed, { timeoutMs: 40_000 });
    await late.delete();
  });

  test('its state folder is full: everything goes on, and what could not be written is written later', async () => {
    const { controllerState: state } = bed.mesh;
    await bed.mesh.controller.stop();
    cpSync(state, `${state}.kept`, { recursive: true });
    await controlNode.output(['mount', '-t', 'tmpfs', '-o', 'size=256k,mode=0700', 'state', state]);
    cpSync(`${state}.kept`, state, { recursive: true });
    await bed.mesh.restartController();
    await controlNode.exec(['dd', 'if=/dev/zero', `of=${join(state, 'filler')}`, 'bs=4k']);
    bed.lab.manifests.apply(serviceEntry('without-address'), serviceEntry('with-address', '10.99.9.9'));
    await waitFor('the agent to hear of it', async () =>
      (await agentOf(0).admin('/config_dump')).includes('10.99.9.9'),
    );
    // Also one that starts now.
    await bed.mesh.controller.stop('SIGKILL');
    await bed.mesh.restartController();
    await expectNewPodServed(await newPod('born-without-space'));
    rmSync(join(state, 'filler'));
    await waitFor('addresses to be written', () =>
      readFileSync(join(state, 'vips'), 'utf8').includes('without-address.example'),
    );
    expect(readdirSync(state).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    await bed.mesh.controller.stop();
    await controlNode.output(['umount', state]);
    await bed.mesh.restartController();
  });
});

/** Without an address it gets one of ours, which is kept in the controller's state. */
function serviceEntry(name: string, address?: string): Manifest {
  return {
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: { name, namespace: 'shop' },
    spec: {
      hosts: [`${name}.example`],
      ...(address === undefined ? {} : { addresses: [address] }),
      ports: [{ number: 80, name: 'tcp', protocol: 'TCP' }],
      resolution: 'STATIC',
      endpoints: [{ address: '10.98.0.1' }],
    },
  };
}
