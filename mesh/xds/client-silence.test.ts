import { createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { until } from '../../test/support/wait.js';
import { createLog } from '../log/index.js';
import { ADDRESS_TYPE_URL, encodeDeltaResponse } from '../proto/index.js';
import { XdsClient, type XdsClientOptions } from './client.js';
import { FakeController } from './fake-controller.js';

// A controller that is there and says nothing: of what the client may wait for, nothing is waited for without end.

jest.setTimeout(30_000); // the machine may be busy

let controller: FakeController;
let client: XdsClient;

beforeEach(async () => {
  controller = new FakeController();
  await controller.start();
});

afterEach(() => {
  client.stop();
  controller.dispose();
});

function startClient(changes: Partial<XdsClientOptions>): void {
  const node = {
    instanceIp: '10.0.0.9',
    podName: 'agent-x',
    podNamespace: 'mesh-system',
    nodeName: 'node-1',
  };
  client = new XdsClient(
    {
      controller: controller.controllerOptions,
      node: { ...node, metadata: {} },
      maxBackoffMs: 50,
      ...changes,
    },
    { log: createLog({ level: 'silent', component: 'test' }), onUpdate: () => {} },
  );
  client.start();
}

test('no TLS: given up after the connect timeout', async () => {
  const sockets: Socket[] = [];
  const mute = createServer((socket) => sockets.push(socket.on('error', () => {})));
  await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
  const { port } = mute.address() as { port: number };
  startClient({
    controller: { ...controller.controllerOptions, address: `127.0.0.1:${port}` },
    connectTimeoutMs: 50,
  });
  await until(() => client.state.lastError === 'no connection within 50 ms');
  await until(() => client.state.lastError === 'no connection within 200 ms'); // a busy controller is given more time
  client.stop();
  for (const socket of sockets) socket.destroy();
  mute.close();
});

test('no answer on a stream: given up for another; one that was answered may then be silent', async () => {
  startClient({ connectTimeoutMs: 500, answerTimeoutMs: 200 });
  await controller.nextStream();
  await until(() => client.state.lastError === 'no answer within 200 ms');
  expect(client.state.terminations.Error).toBe(1);
  const next = await controller.nextStream();
  await next.nextRequest();
  await next.nextRequest();
  next.send(
    encodeDeltaResponse({
      typeUrl: ADDRESS_TYPE_URL,
      nonce: 'n1',
      systemVersion: '1',
      resources: [],
      removed: [],
    }),
  );
  await next.nextRequest();
  await sleep(1_500);
  expect(client.state).toMatchObject({ isConnected: true, terminations: { Error: 1 } });
});
