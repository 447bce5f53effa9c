import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { ApiError } from './api.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';

let plane: ControlPlane;

beforeAll(async () => {
  // At first use the programs are built.
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
}, 3_600_000);

afterAll(() => plane.close());

test('kubectl talks to it', async () => {
  expect(JSON.parse(await plane.kubectl('version', '-o', 'json'))).toMatchObject({
    serverVersion: { gitVersion: 'v1.36.3', major: '1', minor: '36' },
  });
  await plane.kubectl('create', 'namespace', 'shop');
  expect(await plane.kubectl('get', 'namespace', 'shop', '-o', 'name')).toBe('namespace/shop\n');
});

test('the Service kubernetes has the address on the bridge as its endpoint', async () => {
  const slices = await plane.kubectl(
    'get',
    'endpointslices',
    'kubernetes',
    '-o',
    'jsonpath={.endpoints[*].addresses[*]}',
  );
  expect(slices).toBe(plane.machine.ip);
  const reached = await plane.machine.output(['curl', '-sk', '-m', '10', `${plane.internalUrl}/livez`]);
  expect(reached).toBe('ok');
});

test('a node may write itself and no other', async () => {
  const node = (name: string): object => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } });
  const client = plane.client(plane.nodeCredentials('n1'));
  await client.post('/api/v1/nodes', node('n1'));
  await expect(client.post('/api/v1/nodes', node('n2'))).rejects.toMatchObject({ status: 403 });
  await expect(client.get('/api/v1/namespaces/kube-system/secrets')).rejects.toBeInstanceOf(ApiError);
  client.close();
});

test('state outlives API server and etcd', async () => {
  await plane.kubectl('create', 'configmap', 'kept', '--from-literal=a=b');
  await plane.stopComponent('apiServer', 'SIGKILL');
  await plane.stopComponent('etcd', 'SIGKILL');
  await plane.startComponent('etcd');
  await plane.startComponent('apiServer');
  expect(await plane.kubectl('get', 'configmap', 'kept', '-o', 'jsonpath={.data.a}')).toBe('b');
}, 120_000);
