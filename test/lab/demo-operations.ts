import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import type { Check, DemoOutput, DemoParts } from './demo-checks.js';
import type { LabNode } from './node.js';
import { waitFor } from './wait.js';

const culvertctl = join(packageRoot(), 'cli/culvertctl');

/** What its operator does with the mesh: a policy and its explanation, culvertctl. */
export async function checkOperations(parts: DemoParts, output: DemoOutput, check: Check): Promise<void> {
  output.step('a policy: only the cart may talk to the ledger');
  await checkPolicy(parts, output, check);
  output.step('culvertctl, on node a');
  await checkCulvertctl(parts, output, check);
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
