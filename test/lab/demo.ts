// `npm run demo`: a shop on two nodes, meshed, and what can be seen of it. Exit code 0 only if everything it says was true.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../native/package-root.js';
import { checkShop } from './demo-checks.js';
import { Lab } from './lab.js';
import { type Mesh, startMesh } from './mesh.js';
import { Shop } from './shop.js';

const USAGE = `npm run demo [-- --keep]
  --keep   leave it running after the checks, until Ctrl-C, and print what to try
`;

const started = performance.now();

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function step(line: string): void {
  say(`[${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s] ${line}`);
}

async function demo(keep: boolean): Promise<boolean> {
  using lab = await Lab.create();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      lab.close();
      process.exit(130);
    });
  }
  step('two nodes: network namespaces a and b on a bridge, with cgroups as kubelet makes them');
  const nodes = [await lab.node('a'), await lab.node('b', { cgroupDriver: 'cgroupfs' })];
  step('a controller, and an agent on each node (BPF loaded and attached, certificates asked for)');
  const mesh = await startMesh(lab, { nodes });
  step('the shop of examples/: namespace `shop` is labelled istio.io/dataplane-mode=ambient');
  const shop = await Shop.open(lab);
  const meshed = [...shop.pods.values()].filter((pod) => pod.namespace === 'shop');
  await mesh.waitUntilCaptured(meshed);
  step(`in the mesh now, without a restart or a sidecar: ${meshed.map((pod) => pod.name).join(', ')}`);
  const passed = await checkShop({ lab, mesh, shop }, { say, step });
  if (keep) await keepRunning(lab, mesh, shop);
  return passed;
}

/** Prints what to try and waits for a signal, which ends the process. */
async function keepRunning(lab: Lab, mesh: Mesh, shop: Shop): Promise<never> {
  const script = join(lab.names.state, 'in');
  const cases = [...shop.pods.values()].map(
    (pod) => `  ${pod.name}) shift; exec ${pod.enterCommand} "$@" ;;`,
  );
  const unknown = `  *) echo "pods: ${[...shop.pods.keys()].join(' ')}" >&2; exit 2 ;;`;
  writeFileSync(script, ['#!/bin/sh', 'case $1 in', ...cases, unknown, 'esac', ''].join('\n'));
  const [a] = mesh.agents;
  const culvertctl = join(packageRoot(), 'cli/culvertctl');
  const onControl = `nsenter --net=/run/netns/${lab.nodes.at(-1)!.netns}`;
  const onNode = `nsenter --net=/run/netns/${a!.node.netns}`;
  say(`
Still running. Try, in another terminal (Ctrl-C here ends it all):

  a request from a pod      sh ${script} shopper curl -s ${shop.url('frontend', '/books')}
  one from outside the mesh sh ${script} visitor curl -s http://${shop.pod('frontend').ip}:8080/hours
  what is on the wire       ${onNode} tcpdump -A -i eth0 tcp
  metrics of node a's agent ${onNode} curl -s http://127.0.0.1:15020/metrics
  what it knows             ${onNode} curl -s http://127.0.0.1:15000/config_dump
  its log                   tail -f ${a!.logFile}
  what culvertctl says      ${onNode} ${culvertctl} status    (pods, connections, authz explain …: --help)
  the same of the controller ${onControl} ${culvertctl} status
                            (its manifests: ${lab.manifests.path}, state: ${mesh.controllerState})
  leave the mesh            edit the label in ${join(lab.manifests.path, 'namespace.shop.yaml')}
                            (then by pod address only: nothing but the mesh serves Services here)
`);
  const forever = setInterval(() => undefined, 1 << 30);
  return await new Promise<never>(() => forever);
}

let keep: boolean;
try {
  const flag = { type: 'boolean', default: false } as const;
  const { values } = parseArgs({ options: { keep: flag, help: flag } });
  if (values.help) {
    say(USAGE);
    process.exit(0);
  }
  keep = values.keep;
} catch (thrown) {
  process.stderr.write(`${(thrown as Error).message}\n${USAGE}`);
  process.exit(2);
}
try {
  const passed = await demo(keep);
  say(passed ? '\nAll of it was true.' : '\nNot all of it was true: see the lines marked ✗.');
  process.exit(passed ? 0 : 1);
} catch (thrown) {
  process.stderr.write(`\nThe demo failed: ${(thrown as Error).stack}\n`);
  process.exit(1);
}
