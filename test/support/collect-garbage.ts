// `node --experimental-websocket collect-garbage.js <pid> <threads>`: has every thread of a Node program collect its garbage and prints, as a line of JSON, what is live
// then (`Collected`). Through the inspector, which the program starts at SIGUSR1 and leaves open on its own namespace's 127.0.0.1:9229: for tests only.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

export interface Collected {
  /** Objects and what they hold outside of the heap, of all threads together. */
  readonly liveBytes: number;
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: { readonly sessionId: string; readonly message: string };
  readonly result?: { readonly result?: { readonly value?: unknown } };
}

const inspector = 'http://127.0.0.1:9229/json/list';
const deadlineMs = 20_000;

/** Twice: what is freed by finalizers of the first goes with the second. Workers of ours never return to Node's loop, where the inspector's own command would do it. */
const collect = `(() => {
  process.getBuiltinModule('v8').setFlagsFromString('--expose-gc');
  const gc = process.getBuiltinModule('vm').runInNewContext('gc');
  gc();
  gc();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
})()`;

const [pid, threads] = process.argv.slice(2).map(Number) as [number, number];
setTimeout(() => {
  process.stderr.write(`process ${pid}: not every thread has answered\n`);
  process.exit(1);
}, deadlineMs);
process.kill(pid, 'SIGUSR1');
const socket = new WebSocket(await debuggerUrl());
const waiting = new Map<string, (message: Message) => void>();
const workers: string[] = [];
let onWorker = () => {};
let lastId = 0;
socket.addEventListener('message', ({ data }) => take(JSON.parse(String(data)) as Message, ''));
await once(socket, 'open');

await call('NodeWorker.enable', { waitForDebuggerOnStart: false });
while (workers.length < threads - 1)
  await new Promise<void>((resolve) => {
    onWorker = resolve;
  });
let liveBytes = 0;
for (const worker of ['', ...workers]) liveBytes += await liveOf(worker);
await call('NodeWorker.disable', {});
process.stdout.write(`${JSON.stringify({ liveBytes } satisfies Collected)}\n`);
process.exit(0);

async function debuggerUrl(): Promise<string> {
  for (;;) {
    try {
      const [target] = (await (await fetch(inspector)).json()) as { webSocketDebuggerUrl: string }[];
      return target!.webSocketDebuggerUrl;
    } catch {
      await delay(50); // it does not listen yet
    }
  }
}

async function liveOf(worker: string): Promise<number> {
  const answer = await call('Runtime.evaluate', { expression: collect, returnByValue: true }, worker);
  const bytes = answer.result?.result?.value;
  if (typeof bytes !== 'number') throw new Error(`process ${pid}: ${JSON.stringify(answer)}`);
  return bytes;
}

/** To a worker, or to the main thread (''). */
function call(method: string, params: object, worker = ''): Promise<Message> {
  const id = ++lastId;
  const message = JSON.stringify({ id, method, params });
  return new Promise((resolve) => {
    waiting.set(`${worker} ${id}`, resolve);
    if (worker === '') socket.send(message);
    else void call('NodeWorker.sendMessageToWorker', { sessionId: worker, message });
  });
}

function take({ id, method, params, ...rest }: Message, worker: string): void {
  if (id !== undefined) waiting.get(`${worker} ${id}`)?.(rest);
  if (method === 'NodeWorker.attachedToWorker') {
    workers.push(params!.sessionId);
    onWorker();
  }
  if (method === 'NodeWorker.receivedMessageFromWorker')
    take(JSON.parse(params!.message) as Message, params!.sessionId);
}
