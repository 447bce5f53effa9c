import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { packageRoot } from '../../native/package-root.js';
import type { Check, DemoOutput, DemoParts } from './demo-checks.js';
import type { LabNode } from './node.js';
import { waitFor } from './wait.js';

const culvertctl = join(packageRoot(), 'cli/culvertctl');

/** What its operator does with the mesh: names, a policy and its explanation, an agent's upgrade under load, culvertctl. */
export async function checkOperations(parts: DemoParts, output: DemoOutput, check: Check): Promise<void> {
  output.step("a name: the mesh answers for its services, whatever the pod's own name server");
  await checkName(parts, check);
  output.step('a policy: only the cart may talk to the ledger');
  await checkPolicy(parts, output, check);
  output.step('a new agent takes over on node a, whose frontend and ledger are at work');
  await checkTakeover(parts, check);
  output.step('culvertctl, on node a');
  await checkCulvertctl(parts, output, check);
}

async function checkName({ shop }: DemoParts, check: Check): Promise<void> {
  const shopper = shop.pod('shopper');
  const vip = shop.environment['CATALOG_SERVICE_HOST'];
  const name = 'catalog.shop.svc.cluster.local';
  // Nobody is at 192.0.2.53: the agent answers before anything leaves the pod.
  const ask = `const r = new (require('dns').promises.Resolver)({ timeout: 3000 }); r.setServers(['192.0.2.53']); r.resolve4('${name}').then((a) => console.log(a.join()), (e) => console.log(e.code))`;
  const answer = (await shopper.output(['node', '-e', ask])).trim();
  check(answer === vip, `${name} is ${answer}`);
}

/** Requests one after the other, each on a connection of its own, until stopped. */
async function checkTakeover({ mesh, shop }: DemoParts, check: Check): Promise<void> {
  const shopper = shop.pod('shopper');
  const url = shop.url('frontend', '/orders');
  const script = `while [ ! -e "$1" ]; do curl -sS -m 15 --fail -o /dev/null -d '{"book":"Water Under Roads","card":"2"}' "$2" && echo ok || echo failed; done`;
  const stopFile = join(shopper.node.stateDir, 'stop-requests');
  const load = shopper.spawn(['sh', '-c', script, 'load', stopFile, url]);
  const old = mesh.agents.find(({ node }) => node.name === 'a')!;
  const successor = await old.startSuccessor();
  await successor.waitUntilServing();
  await setTimeout(1_000);
  writeFileSync(stopFile, '');
  const lines = (await load.ended).stdout.trim().split('\n');
  const failed = lines.filter((line) => line !== 'ok').length;
  check(
    old.process.pid !== successor.process.pid,
    `process ${successor.process.pid} serves in place of ${old.process.pid}, which ends what it has`,
  );
  check(failed === 0 && lines.length > 5, `${lines.length} orders meanwhile, ${failed} failed`);
}

async function checkPolicy({ lab, shop }: DemoParts, output: DemoOutput, check: Check): Promise<void> {
  const [shopper, ledger] = [shop.pod('shopper'), shop.pod('ledger')];
  const ask = async () =>
    await shopper.exec(['curl', '-sS', '-m', '5', '-o', '/dev/null', `http://${ledger.ip}:8080/`]);
  check((await ask()).code === 0, 'before it, the shopper reaches the ledger');
  lab.manifests.apply({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'ledger-from-cart', namespace: 'shop' },
    spec: {
      selector: { matchLabels: { app: 'ledger' } },
      action: 'ALLOW',
      rules: [{ from: [{ source: { principals: ['cluster.local/ns/shop/sa/cart'] } }] }],
    },
  });
  const reset = await waitFor('the policy to be in force', async () => {
    const { code, stderr } = await ask();
    return code === 0 ? null : stderr.trim();
  }).catch(() => null);
  check(reset !== null, `with it, the shopper does not: ${reset}`);
  const explained = await shopper.node.exec([
    ...[culvertctl, 'authz', 'explain', '--port', '8080'],
    ...['--from', 'shop/shopper', '--to', 'shop/ledger'],
  ]);
  check(explained.code === 1, 'culvertctl authz explain says why:');
  print(explained.stdout, output);
  const order = await shopper.exec([
    ...['curl', '-sS', '-m', '15', '--fail-with-body', '-d', '{"book":"The Silent Culvert","card":"1"}'],
    shop.url('frontend', '/orders'),
  ]);
  check(order.code === 0, 'an order, whose cart asks the ledger, still comes back');
}

async function checkCulvertctl({ shop }: DemoParts, output: DemoOutput, check: Check): Promise<void> {
  const { node } = shop.pod('frontend');
  for (const words of [['status'], ['pods'], ['cert']]) {
    const { code, stdout, stderr } = await run(node, words);
    check(code === 0, `culvertctl ${words.join(' ')}`);
    print(stdout + stderr, output);
  }
}

async function run(node: LabNode, words: readonly string[]) {
  return await node.exec([culvertctl, ...words]);
}

function print(text: string, output: DemoOutput): void {
  for (const line of text.trimEnd().split('\n')) output.say(`            ${line}`);
}
