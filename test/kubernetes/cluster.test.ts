import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import { type Cluster, startCluster } from './cluster.js';

const IMAGE = 'registry.example/culvert-test/http-echo:1';
let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  await cluster.plane.apply(...shop());
  await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s');
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod/shell', '--timeout=60s');
}, 3_600_000);

afterAll(() => cluster.close());

function shop(): object[] {
  const web = {
    name: 'web',
    image: IMAGE,
    env: [
      { name: 'NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      { name: 'GREETING', valueFrom: { configMapKeyRef: { name: 'settings', key: 'greeting' } } },
      { name: 'SENTENCE', value: '$(GREETING), $(UNKNOWN)' },
    ],
    ports: [{ name: 'http', containerPort: 8080 }],
    readinessProbe: { httpGet: { port: 'http', path: '/ready' }, periodSeconds: 1 },
    volumeMounts: [
      { name: 'settings', mountPath: '/etc/settings' },
      { name: 'secret', mountPath: '/etc/secret' },
    ],
  };
  const volumes = [
    { name: 'settings', configMap: { name: 'settings' } },
    {
      name: 'secret',
      secret: { secretName: 'secret', defaultMode: 0o400, items: [{ key: 'a', path: 'b/c' }] },
    },
  ];
  const labels = { app: 'web' };
  return [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: { greeting: 'hello' } },
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'secret' }, stringData: { a: 'hidden' } },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web' },
      spec: {
        replicas: 2,
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { containers: [web], volumes } },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web' },
      spec: {
        selector: labels,
        ipFamilyPolicy: 'PreferDualStack',
        ports: [{ port: 80, targetPort: 'http' }],
      },
    },
    pod('shell', { command: ['sh', '-c', 'echo it runs; echo and warns >&2; exec sleep 1000000'] }),
  ];
}

function pod(name: string, container: object, spec: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
      terminationGracePeriodSeconds: 2,
      containers: [{ name: 'main', image: 'busybox', ...container }],
      ...spec,
    },
  };
}

async function inShell(...command: string[]): Promise<string> {
  return await cluster.kubectl('exec', 'shell', '--', ...command);
}

async function jsonpath(what: readonly string[], path: string): Promise<string> {
  return await cluster.kubectl('get', ...what, '-o', `jsonpath={${path}}`);
}

async function webPods(): Promise<string[]> {
  return (await jsonpath(['pods', '-l', 'app=web'], '.items[*].metadata.name')).split(' ');
}

describe('nodes', () => {
  test('are Ready by their leases, and each is only its own', async () => {
    expect(await jsonpath(['nodes'], '.items[*].metadata.name')).toBe('a b');
    const lease = await jsonpath(['leases', '-n', 'kube-node-lease'], '.items[*].spec.holderIdentity');
    expect(lease).toBe('a b');
    const log = readFileSync(cluster.nodes[0]!.logFile, 'utf8');
    expect(log.replace(/^\S+ node a is registered\n/, '')).toBe('');
  });

  test('may read only what their own pods use, and write no other node', async () => {
    const { plane } = cluster;
    await plane.kubectl('create', 'secret', 'generic', 'unused', '--from-literal=a=b');
    const client = plane.client(plane.nodeCredentials('a'));
    const refused = { status: 403 };
    await expect(client.get('/api/v1/namespaces/default/secrets/unused')).rejects.toMatchObject(refused);
    await expect(client.patch('/api/v1/nodes/b', { metadata: { labels: { x: 'y' } } })).rejects.toMatchObject(
      refused,
    );
    const onB = (
      await cluster.kubectl('get', 'pods', '-o', 'name', '--field-selector=spec.nodeName=b')
    ).trim();
    const [name] = onB.split('\n');
    const path = `/api/v1/namespaces/default/${name!.replace('pod/', 'pods/')}`;
    await expect(client.patch(`${path}/status`, { status: { message: 'x' } })).rejects.toMatchObject(refused);
    await expect(client.delete(path)).rejects.toMatchObject(refused);
    client.close();
  });
});

describe('pods', () => {
  test('scale, and are ready by their probes', async () => {
    await cluster.kubectl('scale', 'deployment/web', '--replicas=4');
    await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=60s');
    expect(await webPods()).toHaveLength(4);
    const nodes = (await jsonpath(['pods', '-l', 'app=web'], '.items[*].spec.nodeName')).split(' ');
    expect(new Set(nodes)).toEqual(new Set(['a', 'b']));
    await cluster.kubectl('scale', 'deployment/web', '--replicas=2');
    await waitFor('two of four to go', async () => (await webPods()).length === 2, { timeoutMs: 30_000 });
  });

  test('have environment, ConfigMaps, Secrets and a token as their spec says', async () => {
    const [name] = await webPods();
    const script =
      'echo "$SENTENCE"; cat /etc/settings/greeting /etc/secret/b/c; stat -Lc %a /etc/secret/b/c; hostname; ls /run';
    const seen = await cluster.kubectl('exec', name!, '--', 'sh', '-c', script);
    expect(seen).toBe(`hello, $(UNKNOWN)\nhellohidden400\n${name}\nsecrets\n`);
    const token = '/var/run/secrets/kubernetes.io/serviceaccount';
    const ask = `curl -sS -m 20 --cacert ${token}/ca.crt -H "Authorization: Bearer $(cat ${token}/token)" https://$KUBERNETES_SERVICE_HOST`;
    const answer = await inShell('sh', '-c', `${ask}/api/v1/pods`);
    expect(answer).toContain('system:serviceaccount:default:default');
    await cluster.kubectl('patch', 'configmap', 'settings', '-p', '{"data":{"greeting":"good bye"}}');
    await waitFor(
      'the new text',
      async () =>
        (await cluster.kubectl('exec', name!, '--', 'cat', '/etc/settings/greeting')) === 'good bye',
      { timeoutMs: 30_000 },
    );
  });

  test('have the capabilities that their spec gives, and no others', async () => {
    const limited = {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] },
    };
    const command = ['sh', '-c', 'grep -E "CapEff|NoNewPrivs" /proc/self/status; id -u; touch /x'];
    await cluster.plane.apply(
      pod('limited', { command, securityContext: limited }, { restartPolicy: 'Never' }),
      pod('user', { command, securityContext: { runAsUser: 1000 } }, { restartPolicy: 'Never' }),
    );
    await cluster.kubectl(
      'wait',
      '--for=jsonpath={.status.phase}=Failed',
      'pod/limited',
      'pod/user',
      '--timeout=30s',
    );
    expect(await cluster.kubectl('logs', 'limited')).toMatch(
      /CapEff:\s0000000000001000\nNoNewPrivs:\s1\n0\n.*Read-only file system/,
    );
    expect(await cluster.kubectl('logs', 'user')).toMatch(
      /CapEff:\s0+\nNoNewPrivs:\s0\n1000\n.*Permission denied/,
    );
  });

  test('are started again when they end or their liveness probe fails', async () => {
    await cluster.plane.apply(
      pod('failing', { command: ['sh', '-c', 'echo here; exit 7'] }),
      pod('sick', {
        command: ['sleep', '1000000'],
        livenessProbe: { exec: { command: ['false'] }, periodSeconds: 1, failureThreshold: 1 },
      }),
    );
    const restarts = async (name: string): Promise<number> =>
      Number(await jsonpath(['pod', name], '.status.containerStatuses[0].restartCount'));
    for (const name of ['failing', 'sick']) {
      await waitFor(`${name} to start again`, async () => (await restarts(name)) >= 2, { timeoutMs: 60_000 });
    }
    const code = await jsonpath(
      ['pod', 'failing'],
      '.status.containerStatuses[0].lastState.terminated.exitCode',
    );
    expect(code).toBe('7');
    expect(await cluster.kubectl('logs', '--previous', 'failing')).toBe('here\n');
    await cluster.kubectl('delete', 'pod', 'failing', 'sick');
  });

  test('whose image nobody knows say so', async () => {
    await cluster.plane.apply(pod('unknown', { image: 'nobody/knows:1' }));
    const reason = '.status.containerStatuses[0].state.waiting.reason';
    await waitFor('its status', async () => (await jsonpath(['pod', 'unknown'], reason)) === 'ErrImagePull');
    await cluster.kubectl('delete', 'pod', 'unknown');
  });

  test('run init containers first, and those of a Job end', async () => {
    const share = { volumes: [{ name: 'shared', emptyDir: {} }] };
    const mount = { image: 'busybox', volumeMounts: [{ name: 'shared', mountPath: '/shared' }] };
    const spec = {
      ...share,
      restartPolicy: 'Never',
      initContainers: [
        { name: 'first', ...mount, command: ['sh', '-c', 'echo from the first >/shared/file'] },
      ],
      containers: [{ name: 'main', ...mount, command: ['cat', '/shared/file'] }],
    };
    await cluster.plane.apply({
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name: 'job' },
      spec: { template: { spec } },
    });
    await cluster.kubectl('wait', '--for=condition=Complete', 'job/job', '--timeout=60s');
    expect(await cluster.kubectl('logs', 'job/job')).toBe('from the first\n');
  });
});

describe('deletion', () => {
  test('gives a pod its grace to end, and takes it then', async () => {
    const trap = (seconds: number): object => ({
      command: [
        'sh',
        '-c',
        `trap 'echo asked; sleep ${seconds}; exit 0' TERM; echo up; while :; do sleep 0.1; done`,
      ],
    });
    await cluster.plane.apply(pod('polite', trap(1)), pod('stubborn', trap(1000)));
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod/polite', 'pod/stubborn', '--timeout=30s');
    for (const name of ['polite', 'stubborn']) {
      await waitFor(`${name} to be up`, async () => (await cluster.kubectl('logs', name)) === 'up\n');
    }
    const started = performance.now();
    await cluster.kubectl('delete', 'pod', 'polite', '--grace-period=60', '--timeout=30s');
    expect(performance.now() - started).toBeGreaterThan(900);
    const asked = performance.now();
    await cluster.kubectl('delete', 'pod', 'stubborn', '--grace-period=3', '--timeout=30s');
    expect(performance.now() - asked).toBeGreaterThan(2900);
  });

  test('of one by force leaves nothing on the node', async () => {
    await cluster.plane.apply(pod('forced', { command: ['sleep', '1000000'] }, { nodeName: 'a' }));
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod/forced', '--timeout=30s');
    const uid = await jsonpath(['pod', 'forced'], '.metadata.uid');
    await cluster.kubectl('delete', 'pod', 'forced', '--force', '--grace-period=0');
    const { machine } = cluster.nodes[0]!;
    await waitFor('its cgroup to be gone', async () => {
      const found = await machine.output(['find', machine.cgroup, '-name', `*${uid.replaceAll('-', '_')}*`]);
      return found === '';
    });
  });
});

describe('kubectl', () => {
  test('logs, with times, the last lines, and as they come', async () => {
    expect((await cluster.kubectl('logs', 'shell')).split('\n').sort()).toEqual(['', 'and warns', 'it runs']);
    expect(await cluster.kubectl('logs', 'shell', '--timestamps', '--tail=1')).toMatch(
      /^\d{4}-\d\d-\d\dT\S+Z \w+ \w+\n$/,
    );
    expect(await cluster.kubectl('logs', 'shell', '--since-time=2100-01-01T00:00:00Z')).toBe('');
    await cluster.plane.apply(
      pod(
        'counter',
        { command: ['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.3; done'] },
        { restartPolicy: 'Never' },
      ),
    );
    await cluster.kubectl(
      'wait',
      '--for=condition=PodReadyToStartContainers',
      'pod/counter',
      '--timeout=30s',
    );
    const followed = await waitFor('its log', async () => await cluster.kubectl('logs', '-f', 'counter'));
    expect(followed).toBe('1\n2\n3\n');
  });

  test('exec: input, output, exit code, by WebSocket and by SPDY', async () => {
    await expect(inShell('sh', '-c', 'echo out; echo err >&2; exit 3')).rejects.toMatchObject({
      code: 3,
      stdout: 'out\n',
    });
    const { binaries, kubeconfig } = cluster.plane;
    for (const webSockets of ['true', 'false']) {
      const text = 'x'.repeat(300_000);
      const env = { ...process.env, KUBECONFIG: kubeconfig, KUBECTL_REMOTE_COMMAND_WEBSOCKETS: webSockets };
      const child = spawn(binaries.kubectl, ['exec', '-i', 'shell', '--', 'cat'], { env });
      child.stdin.end(text);
      let got = '';
      for await (const chunk of child.stdout) got += chunk;
      expect(got.length).toBe(text.length);
    }
  });

  test('port-forward reaches a port of the pod', async () => {
    const [name] = await webPods();
    const env = { ...process.env, KUBECONFIG: cluster.plane.kubeconfig };
    const child = spawn(cluster.plane.binaries.kubectl, ['port-forward', name!, ':8080'], { env });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    try {
      const port = await waitFor('the port', () => /127\.0\.0\.1:(\d+)/.exec(text)?.[1]);
      const answer = await (await fetch(`http://127.0.0.1:${port}/there`)).json();
      expect(answer).toMatchObject({ name, path: '/there' });
    } finally {
      child.kill();
    }
  });
});

describe('Services', () => {
  test('are reached from pods and nodes, by both families, and spread over their endpoints', async () => {
    const [v4, v6] = (await jsonpath(['service', 'web'], '.spec.clusterIPs[*]')).split(' ');
    const script = (host: string): string => `for i in $(seq 30); do curl -sS -m 10 http://${host}/; done`;
    const names = (text: string): Set<string> =>
      new Set([...text.matchAll(/"name":"([^"]+)"/g)].map((match) => match[1]!));
    const pods = new Set(await webPods());
    expect(names(await inShell('sh', '-c', script(v4!)))).toEqual(pods);
    expect(names(await inShell('sh', '-c', script(`[${v6}]`)))).toEqual(pods);
    const fromNode = await cluster.nodes[0]!.machine.output(['sh', '-c', script(v4!)]);
    expect(names(fromNode)).toEqual(pods);
    // A pod that meets itself is answered, too.
    const [own] = pods;
    expect(names(await cluster.kubectl('exec', own!, '--', 'sh', '-c', script(v4!)))).toEqual(pods);
  });

  test('without endpoints refuse at once', async () => {
    await cluster.kubectl('create', 'service', 'clusterip', 'empty', '--tcp=80:80');
    const vip = await jsonpath(['service', 'empty'], '.spec.clusterIP');
    const ask = async (): Promise<string> =>
      await inShell('sh', '-c', `curl -sS -m 5 http://${vip}/ 2>&1 || true`);
    await waitFor('the rule', async () => /Couldn't connect|refused/.test(await ask()), {
      timeoutMs: 20_000,
    });
  });
});
