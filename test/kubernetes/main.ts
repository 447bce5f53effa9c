// `npm run cluster`: a Kubernetes cluster on this machine, to try Culvert on, until Ctrl-C.
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Lab } from '../lab/index.js';
import { ensureKubernetes } from './binaries.js';
import { startCluster } from './cluster.js';
import { ensureDiscovery } from './discovery.js';

const USAGE = `npm run cluster [-- --nodes N] [-- --build]
  --nodes N   nodes of the cluster, 1 to 50 (2)
  --build     only build and fetch the programs, also those of the tests (kept in ~/.cache/culvert/kubernetes)
`;

const started = performance.now();

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function step(line: string): void {
  say(`[${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s] ${line}`);
}

async function run(nodes: number): Promise<void> {
  await ensureKubernetes(step);
  using lab = await Lab.create();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      lab.close();
      process.exit(0);
    });
  }
  const names = Array.from({ length: nodes }, (_, index) => `node-${index + 1}`);
  step(`etcd, API server, controller manager, scheduler; kubelets of ${names.join(', ')}`);
  const cluster = await startCluster({ lab, nodes: names });
  step('all nodes are Ready');
  const { kubeconfig, binaries } = cluster.plane;
  const bin = lab.names.state;
  for (const name of ['kubectl', 'helm'] as const) symlinkSync(binaries[name], join(bin, name));
  say(`
In another terminal (Ctrl-C here ends it all, with everything in it):

  export KUBECONFIG=${kubeconfig} PATH=${bin}:$PATH
  kubectl get nodes -o wide
  kubectl create deployment web --image=culvert-test/http-echo --replicas=3
  kubectl expose deployment web --port=80 --target-port=8080
  kubectl run shell --image=busybox -- sleep infinity
  kubectl exec shell -- curl -s http://$(kubectl get service web -o jsonpath={.spec.clusterIP})/
  kubectl logs -l app=web --prefix

The mesh (docs/kubernetes.md goes on from here):

  kubectl create namespace culvert-system
  kubectl label namespace culvert-system pod-security.kubernetes.io/enforce=privileged
  helm install culvert charts/culvert -n culvert-system --wait
  kubectl label namespace default istio.io/dataplane-mode=ambient
  cli/culvertctl status

There are no images, and no DNS but for Services: image names stand for programs of this machine, see test/kubernetes/README.md.
Logs of kubelets and control plane: ${lab.names.state}/*/*.log
`);
  const forever = setInterval(() => undefined, 1 << 30);
  await new Promise<never>(() => forever);
}

try {
  const { values } = parseArgs({
    options: {
      nodes: { type: 'string', default: '2' },
      build: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const nodes = Number(values.nodes);
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > 50)
    throw new Error(`--nodes ${values.nodes}: 1 to 50`);
  if (values.help) say(USAGE);
  else if (values.build) {
    await ensureKubernetes(step);
    await ensureDiscovery(step);
  } else await run(nodes);
} catch (thrown) {
  process.stderr.write(`the cluster failed: ${(thrown as Error).message}\n`);
  process.exit(1);
}
