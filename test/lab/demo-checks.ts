import { checkOperations } from './demo-operations.js';
import type { Lab } from './lab.js';
import type { AccessLogLine, Mesh } from './mesh.js';
import type { LabPod } from './pod.js';
import type { Shop } from './shop.js';
import { waitFor } from './wait.js';

export interface DemoParts {
  readonly lab: Lab;
  readonly mesh: Mesh;
  readonly shop: Shop;
}

export interface DemoOutput {
  say(line: string): void;
  step(line: string): void;
}

/** These travel only inside the mesh, so they must never be seen on the wire. */
const CARD = '4000-0012-3456-7899';
const BOOK = 'The Silent Culvert';

/** Travels in the clear, between a client outside the mesh and the frontend: shows that the capture would see a secret. */
const OPENLY = 'open from nine to five';

const ORDERS = 5;

/** Client, server, and how many connections one look at the catalog and the orders make; every request has its own. */
const FLOWS = [
  ['shopper', 'frontend', 1 + ORDERS],
  ['frontend', 'catalog', 1],
  ['frontend', 'cart', ORDERS],
  ['cart', 'ledger', ORDERS],
] as const;

/** Lets the shop work and checks what can be seen of it from outside; says each finding and returns whether all held. */
export async function checkShop(parts: DemoParts, output: DemoOutput): Promise<boolean> {
  const findings: boolean[] = [];
  const check = (holds: boolean, what: string): void => {
    findings.push(holds);
    output.say(`          ${holds ? '✓' : '✗'} ${what}`);
  };
  const nodeA = parts.shop.pod('frontend').node;
  const capture = await nodeA.capture();
  output.step(
    `the shopper looks at the books and orders ${ORDERS} times; tcpdump listens on the wire between the nodes`,
  );
  await checkRequests(parts, check);
  output.step('a visitor who is not in the mesh asks for the hours');
  await checkVisitor(parts, check);
  output.step('who talked to whom, as the agent of the server logged it');
  await checkAccessLog(parts, output, check);
  output.step('the counters of the same');
  await checkCounters(parts, output, check);
  await checkOperations(parts, output, check);
  await capture.stop();
  output.step(`the capture: ${await capture.count()} packets on the wire between the nodes`);
  check((await capture.count('tcp port 15008')) > 0, 'the mesh talked on port 15008');
  for (const secret of [CARD, BOOK]) check(!capture.contains(secret), `"${secret}" is nowhere in it`);
  check(capture.contains(OPENLY), `"${OPENLY}", which the visitor was told without a mesh, is`);
  return findings.every((holds) => holds);
}

export type Check = (holds: boolean, what: string) => void;

interface Answer {
  readonly books?: readonly string[];
  readonly receipt?: string;
  readonly hours?: string;
  readonly trail: readonly { readonly service: string; readonly caller: string }[];
}

async function ask(pod: LabPod, url: string, body?: object): Promise<Answer> {
  const post = body === undefined ? [] : ['-d', JSON.stringify(body)];
  const text = await pod.output(['curl', '-sS', '-m', '15', '--fail-with-body', ...post, url]);
  return JSON.parse(text) as Answer;
}

async function checkRequests({ shop }: DemoParts, check: Check): Promise<void> {
  const shopper = shop.pod('shopper');
  const { books } = await ask(shopper, shop.url('frontend', '/books'));
  check(books?.includes(BOOK) === true, `the catalog lists ${books?.join(', ')}`);
  const answers: Answer[] = [];
  for (let i = 0; i < ORDERS; i++) {
    answers.push(await ask(shopper, shop.url('frontend', '/orders'), { book: BOOK, card: CARD }));
  }
  const receipts = answers.filter(({ receipt }) => receipt === `${BOOK}, paid with ${CARD}`);
  check(
    receipts.length === ORDERS,
    `${receipts.length} of ${ORDERS} orders came back with the right receipt`,
  );
  const callers = [shopper, shop.pod('frontend'), shop.pod('cart')].map((pod) => pod.ip);
  const seen = answers[0]!.trail.map(({ service, caller }) => `${service} saw ${caller}`).join(', ');
  const areTrue = answers.every(({ trail }) => trail.map(({ caller }) => caller).join() === callers.join());
  check(areTrue, `every program saw its caller's own address: ${seen}`);
}

async function checkVisitor({ shop }: DemoParts, check: Check): Promise<void> {
  const [visitor, frontend] = [shop.pod('visitor'), shop.pod('frontend')];
  const { hours, trail } = await ask(visitor, `http://${frontend.ip}:8080/hours`);
  check(hours === OPENLY, `the frontend answered it in the clear: ${hours}`);
  check(trail[0]!.caller === visitor.ip, `and saw its own address, too: ${trail[0]!.caller}`);
}

function countText(connections: number): string {
  return connections === 1 ? '1 connection' : `${connections} connections`;
}

async function checkAccessLog({ mesh, shop }: DemoParts, output: DemoOutput, check: Check): Promise<void> {
  const inbound = (): AccessLogLine[] =>
    mesh.agents.flatMap((agent) => agent.accessLog()).filter((line) => line['direction'] === 'inbound');
  for (const [client, server, count] of [...FLOWS, ['visitor', 'frontend', 1] as const]) {
    const [from, to] = [shop.pod(client), shop.pod(server)];
    const lines = await waitFor(`access log of ${client} → ${server}`, () => {
      const found = inbound().filter((line) => isFlow(line, from, to));
      return found.length >= count ? found : null;
    }).catch(() => []);
    const wanted = client === 'visitor' ? undefined : `spiffe://cluster.local/ns/shop/sa/${client}`;
    const identities = new Set(lines.map((line) => line['src.identity']));
    const right = lines.length === count && identities.size === 1 && identities.has(wanted);
    const shown = [...identities].map((identity) => identity ?? 'no identity').join(', ') || 'nothing';
    check(right, `${client} → ${server}: ${countText(lines.length)} from ${shown}`);
  }
  const failed = inbound().filter((line) => line['error'] !== undefined);
  check(failed.length === 0, `${countText(failed.length)} failed`);
  const example = inbound().find((line) => isFlow(line, shop.pod('cart'), shop.pod('ledger')));
  if (example !== undefined) output.say(`            one line: ${JSON.stringify(example)}`);
}

/** By addresses, since workload names could be wrong; an IPv6 source is written in brackets. */
function isFlow(line: AccessLogLine, from: LabPod, to: LabPod): boolean {
  return String(line['src.addr']).startsWith(`${from.ip}:`) && line['dst.workload'] === to.name;
}

async function checkCounters({ mesh, shop }: DemoParts, output: DemoOutput, check: Check): Promise<void> {
  for (const [client, server, count] of FLOWS) {
    const agent = mesh.agents.find(({ node }) => node === shop.pod(server).node)!;
    const labels = [
      `source_workload="${client}"`,
      `destination_workload="${server}"`,
      'reporter="destination"',
    ];
    const read = async (name: string): Promise<number> =>
      sumOf(await agent.metrics(), `istio_tcp_${name}_total`, labels);
    const opened = await waitFor('counters', async () => {
      const value = await read('connections_opened');
      return value >= count ? value : null;
    }).catch(() => 0);
    const [received, sent] = [await read('received_bytes'), await read('sent_bytes')];
    const bytes = `${received} bytes to the server, ${sent} back`;
    check(opened === count && received > 0 && sent > 0, `${client} → ${server}: ${opened} opened, ${bytes}`);
  }
  const secured = (await Promise.all(mesh.agents.map((agent) => agent.metrics()))).join('\n');
  const mtls = sumOf(secured, 'istio_tcp_connections_opened_total', [
    'connection_security_policy="mutual_tls"',
  ]);
  output.say(`            connections under mutual TLS, both sides' agents: ${mtls}`);
}

/** Sum of a metric's samples that have all the labels. */
function sumOf(text: string, name: string, labels: readonly string[]): number {
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) && labels.every((label) => line.includes(label)))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}
