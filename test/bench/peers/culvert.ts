import type { SocketAddress } from '../../../mesh/common/address.js';
import { startMesh } from '../../lab/mesh.js';
import { APP_PORT, type Bed, holdIdle, type Peer, waitUntilServing } from '../bed.js';

/** Two agents with one worker each and the controller; the client dials the application and knows nothing of them. */
export const culvert: Peer = {
  name: 'culvert',
  start: async (bed: Bed) => {
    const nodes = [bed.client.node, bed.server.node];
    const mesh = await startMesh(bed.lab, { nodes, workers: 1, ownNodeBinary: true, accessLog: 'off' });
    const target = { address: bed.server.ip, port: APP_PORT };
    await mesh.waitUntilCaptured([bed.client, bed.server]);
    await waitUntilServing(bed, target, 'culvert');
    await assertTunnelled(bed, target);
    return { target, proxies: mesh.agents.map((agent) => agent.process), stop: () => mesh.stop() };
  },
};

/** A pod that was not captured would be measured as "none". */
async function assertTunnelled(bed: Bed, target: SocketAddress): Promise<void> {
  const capture = await bed.client.node.capture({ filter: 'tcp' });
  const holder = await holdIdle(bed, target, 10);
  await holder.stop();
  await capture.stop();
  const [tunnelled, plain] = [await capture.count('port 15008'), await capture.count(`port ${APP_PORT}`)];
  if (tunnelled === 0 || plain > 0) {
    throw new Error(`culvert is not in the way: ${tunnelled} packets on 15008, ${plain} on ${APP_PORT}`);
  }
}
