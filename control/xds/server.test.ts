// Longer than 400 lines: the steps of the protocol one by one, against one raw client.
import {
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  status,
} from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { createLog } from '../../mesh/log/index.js';
import {
  ADDRESS_TYPE_URL,
  AggregatedDiscoveryService,
  AUTHORIZATION_TYPE_URL,
  envoy,
} from '../../mesh/proto/index.js';
import type { Caller, Refusal } from '../ca/types.js';
import { type DeltaRequest, type ResourceContent, XDS_DEFAULTS, XdsServer } from './index.js';

// A raw client: it takes the steps of hbone-and-wds.md 3.1-3.2 one by one.

jest.setTimeout(30_000); // the machine may be busy

type Response = envoy.service.discovery.v3.DeltaDiscoveryResponse;
const METHOD = AggregatedDiscoveryService.deltaAggregatedResources;
const NODE = {
  id: 'ztunnel~1.1.1.1~agent.culvert-system~culvert-system.svc.cluster.local',
  metadata: { fields: { NODE_NAME: { stringValue: 'n1' } } },
};
const CALLER: Caller = {
  namespace: 'culvert-system',
  serviceAccount: 'culvert-agent',
  nodeName: 'n1',
  nodeUid: null,
  pod: null,
  expiresAtMs: Date.now() + 3_600_000,
};

let xds: XdsServer;
let grpc: Server;
let client: Client;
let caller: Caller | Refusal;
let events: string[];
let gone: Set<string>;
let logged: Record<string, unknown>[];

const content = (name: string, text = name, more: Partial<ResourceContent> = {}): ResourceContent => ({
  name,
  aliases: [],
  follows: [],
  value: Buffer.from(text),
  ...more,
});

function put(...contents: ResourceContent[]): void {
  xds.update(ADDRESS_TYPE_URL, new Map(contents.map((one) => [one.name, one])));
}

function remove(...names: string[]): void {
  xds.update(ADDRESS_TYPE_URL, new Map(names.map((name) => [name, null])));
}

class Stream {
  readonly #call: ClientDuplexStream<DeltaRequest, Buffer>;
  readonly #responses: Response[];
  readonly ended: Promise<number>;

  constructor() {
    this.#responses = [];
    const metadata = new Metadata();
    metadata.set('authorization', 'Bearer x');
    this.#call = client.makeBidiStreamRequest(
      METHOD.path,
      METHOD.requestSerialize,
      METHOD.responseDeserialize,
      metadata,
    );
    this.#call.on('data', (bytes: Buffer) => {
      this.#responses.push(envoy.service.discovery.v3.DeltaDiscoveryResponse.decode(bytes));
    });
    this.#call.on('error', () => {});
    this.ended = new Promise((resolve) => this.#call.on('status', ({ code }) => resolve(code)));
  }

  send(request: DeltaRequest): void {
    this.#call.write({ typeUrl: ADDRESS_TYPE_URL, ...request });
  }

  async next(): Promise<Response> {
    const deadline = Date.now() + 20_000;
    while (this.#responses.length === 0) {
      if (Date.now() > deadline) throw new Error('no response');
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return this.#responses.shift()!;
  }

  ack(response: Response, message?: string): void {
    const { typeUrl, nonce } = response;
    this.send({
      typeUrl,
      responseNonce: nonce,
      ...(message === undefined ? {} : { errorDetail: { code: 3, message } }),
    });
  }

  /** Nothing comes within a while in which it would have. */
  async silent(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(this.#responses).toEqual([]);
  }

  cancel(): void {
    this.#call.cancel();
  }
}

const names = (response: Response) => response.resources.map(({ name }) => name).sort();
const versions = (response: Response) =>
  Object.fromEntries(response.resources.map(({ name, version }) => [name, version!]));

beforeEach(async () => {
  caller = CALLER;
  events = [];
  gone = new Set();
  logged = [];
  const destination = { write: (line: string) => void logged.push(JSON.parse(line)) };
  xds = new XdsServer(
    {
      ...XDS_DEFAULTS,
      typeUrls: [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL],
      ackTimeoutMs: 2000,
      maxNamesPerType: 5,
    },
    {
      authenticator: { authenticate: async () => ('refusal' in caller ? caller : { caller }) },
      authorize: ({ nodeName, pod }) => {
        if (gone.has(pod?.uid ?? '')) return { refusal: 'pod-gone', message: 'gone' };
        return nodeName === null ? { refusal: 'no-node', message: 'no node' } : null;
      },
      events: {
        connected: () => events.push('connected'),
        disconnected: () => events.push('disconnected'),
        pushed: (_type, resources) => events.push(`pushed ${resources}`),
        acknowledged: () => events.push('ack'),
        rejected: () => events.push('nack'),
        refused: (reason) => events.push(`refused ${reason}`),
      },
      log: createLog({ level: 'info', component: 'test' }, { destination }),
    },
  );
  grpc = new Server();
  grpc.addService(AggregatedDiscoveryService, { deltaAggregatedResources: xds.handle });
  const port = await new Promise<number>((resolve, reject) =>
    grpc.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
});

afterEach(() => {
  client.close();
  grpc.forceShutdown();
});

describe('a wildcard client', () => {
  test('gets everything, then only what changes; one push is outstanding at a time', async () => {
    put(content('a'), content('b'));
    const stream = new Stream();
    stream.send({ node: NODE });
    const first = await stream.next();
    expect(first).toMatchObject({ typeUrl: ADDRESS_TYPE_URL, removedResources: [] });
    expect(names(first)).toEqual(['a', 'b']);
    expect(Buffer.from(first.resources[0]!.resource!.value!).toString()).toBe('a');
    put(content('c'));
    put(content('a', 'new'));
    remove('b');
    await stream.silent();
    stream.ack(first);
    const second = await stream.next();
    expect([names(second), second.removedResources]).toEqual([['a', 'c'], ['b']]);
    expect(second.nonce).not.toBe(first.nonce);
    stream.ack(second);
    put(content('c'));
    await stream.silent();
    put(content('d'));
    expect(names(await stream.next())).toEqual(['d']);
    stream.cancel();
  });

  test('both types on one stream do not wait for each other; an empty type is answered', async () => {
    put(content('a'));
    const stream = new Stream();
    stream.send({ node: NODE });
    stream.send({ node: NODE, typeUrl: AUTHORIZATION_TYPE_URL });
    const answers = [await stream.next(), await stream.next()];
    expect(answers.map(({ typeUrl, resources }) => [typeUrl, resources.length])).toEqual([
      [ADDRESS_TYPE_URL, 1],
      [AUTHORIZATION_TYPE_URL, 0],
    ]);
    stream.cancel();
  });

  test('is sent what comes after another type only when that is out, though an earlier push of it is unanswered', async () => {
    const [first, later] = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL];
    const stream = new Stream();
    for (const typeUrl of [first, later]) {
      stream.send({ node: NODE, typeUrl });
      stream.ack(await stream.next());
    }
    xds.update(later, new Map([['x', content('x')]]));
    const unanswered = await stream.next();
    xds.update(later, new Map([['x', content('x', 'new')]]));
    xds.update(first, new Map([['a', content('a')]]), later);
    await stream.silent();
    stream.ack(unanswered);
    expect((await stream.next()).typeUrl).toBe(later);
    const last = await stream.next();
    expect([last.typeUrl, names(last)]).toEqual([first, ['a']]);
    stream.ack(last);
    // Nobody waits where nothing is to come.
    xds.update(first, new Map([['a', content('a', 'new')]]), later);
    expect((await stream.next()).typeUrl).toBe(first);
  });

  test('is sent what a type names first: a later type waits while an earlier one has something unsent', async () => {
    const [first, later] = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL];
    const stream = new Stream();
    for (const typeUrl of [first, later]) {
      stream.send({ node: NODE, typeUrl });
      stream.ack(await stream.next());
    }
    put(content('a'));
    const outstanding = await stream.next();
    put(content('b'));
    xds.update(later, new Map([['x', content('x')]]));
    await stream.silent();
    stream.ack(outstanding);
    const [then, last] = [await stream.next(), await stream.next()];
    expect([then.typeUrl, names(then)]).toEqual([first, ['b']]);
    expect([last.typeUrl, names(last)]).toEqual([later, ['x']]);
    stream.cancel();
  });

  test('that reconnects is sent what differs from its versions; what vanished is removed', async () => {
    put(content('same'), content('changes'), content('goes'));
    const first = new Stream();
    first.send({ node: NODE });
    const response = await first.next();
    first.ack(response);
    first.cancel();
    put(content('changes', 'new'), content('comes'));
    remove('goes');
    const second = new Stream();
    // `changes` was rejected, so it is left out; `pending` never came.
    const { changes: _left, ...accepted } = versions(response);
    second.send({ node: NODE, initialResourceVersions: { ...accepted, pending: '' } });
    const after = await second.next();
    expect([names(after), [...after.removedResources].sort()]).toEqual([
      ['changes', 'comes'],
      ['goes', 'pending'],
    ]);
    second.cancel();
  });

  test('that has everything is answered all the same', async () => {
    put(content('a'));
    const first = new Stream();
    first.send({ node: NODE });
    const response = await first.next();
    first.cancel();
    const second = new Stream();
    second.send({ node: NODE, initialResourceVersions: versions(response) });
    expect(await second.next()).toMatchObject({ resources: [], removedResources: [] });
    second.cancel();
  });

  test('that rejects: logged with its reasons, counted, not sent again until it changes', async () => {
    put(content('a'));
    const stream = new Stream();
    stream.send({ node: NODE });
    stream.ack(await stream.next(), 'a: port 0 is no port');
    await stream.silent();
    expect(events).toContain('nack');
    expect(logged).toContainEqual(
      expect.objectContaining({ level: 'warn', node: NODE.id, reason: 'a: port 0 is no port' }),
    );
    put(content('a', 'better'));
    expect(names(await stream.next())).toEqual(['a']);
    stream.cancel();
  });

  test('that answers an older nonce has answered nothing; one that never answers is dropped', async () => {
    put(content('a'));
    const stream = new Stream();
    stream.send({ node: NODE });
    const first = await stream.next();
    stream.ack(first);
    put(content('b'));
    await stream.next();
    stream.ack(first);
    put(content('c'));
    await stream.silent();
    expect(await stream.ended).toBe(status.DEADLINE_EXCEEDED);
    expect(events.at(-1)).toBe('disconnected');
  });
});

describe('an on-demand client', () => {
  const onDemand = { node: NODE, resourceNamesSubscribe: ['*'], resourceNamesUnsubscribe: ['*'] };

  test('subscribes by uid, address and service; a service brings its workloads; the unknown is answered', async () => {
    put(content('svc'), content('w1', 'w1', { aliases: ['net/10.0.0.1'], follows: ['svc'] }), content('w2'));
    const stream = new Stream();
    stream.send(onDemand);
    const empty = await stream.next();
    expect(empty).toMatchObject({ resources: [], removedResources: [] });
    stream.ack(empty);
    stream.send({ resourceNamesSubscribe: ['net/10.0.0.9', 'w2'] });
    const second = await stream.next();
    expect([names(second), second.removedResources]).toEqual([['w2'], ['net/10.0.0.9']]);
    stream.ack(second);
    stream.send({ resourceNamesSubscribe: ['svc'] });
    const third = await stream.next();
    expect(names(third)).toEqual(['svc', 'w1']);
    stream.ack(third);
    put(
      content('w3', 'w3', { follows: ['svc'] }),
      content('stranger'),
      content('w9', 'w9', { aliases: ['net/10.0.0.9'] }),
    );
    const fourth = await stream.next();
    expect(names(fourth)).toEqual(['w3', 'w9']);
    stream.ack(fourth);
    put(content('w1', 'w1', { aliases: ['net/10.0.0.1'] }));
    const fifth = await stream.next();
    expect([names(fifth), fifth.removedResources]).toEqual([[], ['w1']]);
    stream.cancel();
  });

  test('subscribing again asks for it again; unsubscribing ends it', async () => {
    put(content('a'), content('b'));
    const stream = new Stream();
    stream.send({ node: NODE, resourceNamesSubscribe: ['a'] });
    stream.ack(await stream.next());
    stream.send({ resourceNamesSubscribe: ['a'] });
    const again = await stream.next();
    expect(names(again)).toEqual(['a']);
    stream.ack(again);
    // The answer for b shows that the server has read it.
    stream.send({ resourceNamesUnsubscribe: ['a'], resourceNamesSubscribe: ['b'] });
    const other = await stream.next();
    expect(names(other)).toEqual(['b']);
    stream.ack(other);
    put(content('a', 'new'));
    await stream.silent();
    stream.cancel();
  });

  test('that reconnects still gets what it holds', async () => {
    put(content('a'), content('b'));
    const stream = new Stream();
    stream.send({ ...onDemand, initialResourceVersions: { a: 'old' } });
    const response = await stream.next();
    expect(names(response)).toEqual(['a']);
    stream.cancel();
  });

  test('with more names than allowed is dropped', async () => {
    const stream = new Stream();
    stream.send({ node: NODE, resourceNamesSubscribe: ['1', '2', '3', '4', '5', '6'] });
    expect(await stream.ended).toBe(status.RESOURCE_EXHAUSTED);
  });
});

describe('refused', () => {
  test.each<[string, DeltaRequest, number, string | null]>([
    ['no node', {}, status.INVALID_ARGUMENT, 'node-missing'],
    ['a node id of another form', { node: { id: 'x' } }, status.INVALID_ARGUMENT, 'node-missing'],
    [
      'another namespace',
      { node: { id: 'ztunnel~1.1.1.1~a.b~b.svc.cluster.local' } },
      status.PERMISSION_DENIED,
      'node-mismatch',
    ],
    [
      'another node',
      { node: { ...NODE, metadata: { fields: { NODE_NAME: { stringValue: 'n2' } } } } },
      status.PERMISSION_DENIED,
      'node-mismatch',
    ],
    [
      'another account',
      { node: { ...NODE, metadata: { fields: { SERVICE_ACCOUNT: { stringValue: 'x' } } } } },
      status.PERMISSION_DENIED,
      'node-mismatch',
    ],
    [
      'a type that is not served',
      { node: NODE, typeUrl: 'type.googleapis.com/x' },
      status.INVALID_ARGUMENT,
      null,
    ],
  ])('%s', async (_name, request, code, reason) => {
    const stream = new Stream();
    stream.send(request);
    expect(await stream.ended).toBe(code);
    if (reason !== null) expect(events).toContain(`refused ${reason}`);
  });

  test('a caller without a valid token, or who may not have configuration', async () => {
    caller = { refusal: 'token-expired', message: 'token expired' };
    expect(await new Stream().ended).toBe(status.UNAUTHENTICATED);
    caller = { ...CALLER, nodeName: null };
    expect(await new Stream().ended).toBe(status.UNAUTHENTICATED);
    expect(events).toEqual(['refused token-expired', 'refused no-node']);
  });
});

test('a stream whose caller may have nothing any more is cut off, others go on', async () => {
  put(content('a'));
  const streams: Stream[] = [];
  for (const uid of ['p1', 'p2']) {
    caller = { ...CALLER, pod: { name: uid, uid } };
    const stream = new Stream();
    stream.send({ node: NODE });
    stream.ack(await stream.next());
    streams.push(stream);
  }
  xds.recheck();
  gone.add('p1');
  xds.recheck();
  expect(await streams[0]!.ended).toBe(status.UNAUTHENTICATED);
  put(content('b'));
  expect(names(await streams[1]!.next())).toEqual(['b']);
  expect(events).toContain('refused pod-gone');
});

test('the stream ends with its token', async () => {
  caller = { ...CALLER, expiresAtMs: Date.now() + 1500 };
  const stream = new Stream();
  stream.send({ node: NODE });
  stream.ack(await stream.next());
  expect(await stream.ended).toBe(status.UNAUTHENTICATED);
});

test('nor does it live on where the clock was put back meanwhile', async () => {
  caller = { ...CALLER, expiresAtMs: Date.now() + 3_000 };
  const stream = new Stream();
  stream.send({ node: NODE });
  stream.ack(await stream.next());
  const now = Date.now;
  const put = jest.spyOn(Date, 'now').mockImplementation(() => now() - 500);
  const openedMs = performance.now();
  expect(await stream.ended).toBe(status.UNAUTHENTICATED);
  expect(performance.now() - openedMs).toBeLessThan(5_500); // not another 3 s
  put.mockRestore();
});

test('close ends every stream cleanly, and lets no new one in', async () => {
  const stream = new Stream();
  stream.send({ node: NODE });
  await stream.next();
  xds.close();
  expect(await stream.ended).toBe(status.OK);
  expect(await new Stream().ended).toBe(status.UNAVAILABLE);
  expect(events.filter((event) => event === 'connected')).toHaveLength(1);
});

test('a client that goes away leaves nothing behind', async () => {
  for (let i = 0; i < 20; i++) {
    const stream = new Stream();
    stream.send({ node: NODE });
    await stream.next();
    stream.cancel();
  }
  const deadline = Date.now() + 20_000;
  const count = (event: string) => events.filter((one) => one === event).length;
  while (count('disconnected') < 20 && Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 5));
  expect([count('connected'), count('disconnected')]).toEqual([20, 20]);
});
