import { startMesh } from '../../lab/mesh.js';
import { APP_PORT, type Bed, type Peer, waitUntilServing } from '../bed.js';

/** Two agents with one worker each and the controller; the client dials the application and knows nothing of them. */
export const culvert: Peer = {
  name: 'culvert',
  start: async (bed: Bed) => {
    const nodes = [bed.client.node, bed.server.node];
    const mesh = await startMesh(bed.lab, { nodes, workers: 1, ownNodeBinary: true, accessLog: 'off' });
    const target = { address: bed.server.ip, port: APP_PORT };
    await mesh.waitUntilCaptured([bed.client, bed.server]);
    await waitUntilServing(bed, target, 'culvert');
    return { target, proxies: mesh.agents.map((agent) => agent.process), stop: () => mesh.stop() };
  },
};
