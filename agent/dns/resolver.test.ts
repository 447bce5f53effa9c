import { createSocket, type Socket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { serviceWith, updateWith, workloadWith } from '../../mesh/store/fixtures.js';
import { createStore } from '../../mesh/store/index.js';
import { InFlight } from './limits.js';
import { readMessages } from './listeners.js';
import { encodeAnswer, encodeQuery, parseQuery, parseResponse } from './message.js';
import { Names } from './names.js';
import { PodResolver } from './resolver.js';
import { DnsError, type Query, type Response } from './types.js';

const domain = 'svc.cluster.local';
let upstream: (query: Query) => Promise<Response>;
let failures: string[];
let requests: string[];
let resolver: PodResolver;

beforeEach(() => {
  failures = [];
  requests = [];
  upstream = () => Promise.reject(new DnsError('UPSTREAM_FAILED', 'nobody'));
  const store = createStore();
  const many = Array.from({ length: 300 }, (_, i) =>
    workloadWith({
      uid: `${i}`,
      addresses: [`10.1.${i >> 8}.${i & 255}`],
      services: new Map([[`shop/many.shop.${domain}`, []]]),
    }),
  );
  const vips = ['10.0.0.1', 'fd00::1'].map((address) => ({ address, network: '', prefixLength: null }));
  const services = [
    serviceWith({
      hostname: `web.shop.${domain}`,
      namespace: 'shop',
      vips,
      ports: [{ servicePort: 80, targetPort: 80 }],
    }),
    serviceWith({ hostname: `many.shop.${domain}`, namespace: 'shop' }),
    serviceWith({
      hostname: `out.shop.${domain}`,
      namespace: 'shop',
      dns: { externalName: 'db.example', ports: [] },
    }),
    serviceWith({
      hostname: `bad.shop.${domain}`,
      namespace: 'shop',
      dns: { externalName: 'a..b', ports: [] },
    }),
  ];
  store.apply(updateWith({ services, workloads: many }));
  resolver = new PodResolver(
    {
      client: { namespace: 'shop', network: '' },
      uid: 'pod',
      cache: { maxEntries: 100, maxBytes: 1e6, maxTtlSeconds: 300 },
    },
    {
      names: new Names({ clusterDomain: 'cluster.local' }, { store, random: Math.random }),
      upstream: { ask: (_, query) => upstream(query) },
      target: () => ({ netnsFd: -1, servers: [], isThere: () => true }),
      inFlight: new InFlight({ maxPerPod: 3, max: 10 }),
      metrics: {
        request: (type, protocol) => requests.push(`${type} ${protocol}`),
        upstream: (_type, _protocol, _ms, failed) => requests.push(failed ? 'failed' : 'upstream'),
      },
      nowMs: () => 0,
      onFailure: ({ code }) => failures.push(code),
    },
  );
});

const respond = (query: Query, data: number[], rcode = 0) =>
  parseResponse(
    encodeAnswer(query, {
      rcode,
      records: [{ owner: null, type: 1, ttlSeconds: 60, data: Buffer.from(data) }],
      maxBytes: 512,
    }),
  );
const ask = (name: string, type = 1): Promise<Response> =>
  new Promise((resolve) =>
    resolver.handle(encodeQuery(7, { name, type, class: 1 }), 'udp', (answer) =>
      resolve(parseResponse(answer)),
    ),
  );

describe("Node's own resolver (c-ares) as the client", () => {
  let udp: Socket;
  let tcp: Server;
  let client: Resolver;
  beforeEach(async () => {
    tcp = createServer({ allowHalfOpen: true }, (socket) =>
      readMessages(
        socket.on('error', () => {}),
        { tryTake: () => true },
        (bytes, done) => resolver.handle(bytes, 'tcp', done),
      ),
    ).listen(0, '127.0.0.1');
    await once(tcp, 'listening');
    const { port } = tcp.address() as { port: number };
    udp = createSocket('udp4').bind(port, '127.0.0.1');
    udp.on('message', (bytes, from) =>
      resolver.handle(bytes, 'udp', (answer) => udp.send(answer, from.port, from.address)),
    );
    await once(udp, 'listening');
    client = new Resolver({ timeout: 5_000, tries: 1 });
    client.setServers([`127.0.0.1:${port}`]);
  });
  afterEach(() => {
    client.cancel();
    udp.close();
    tcp.close();
  });

  test('A, AAAA, SRV, PTR, CNAME, mixed case', async () => {
    expect(await client.resolve4(`Web.shop.${domain}`, { ttl: true })).toEqual([
      { address: '10.0.0.1', ttl: 30 },
    ]);
    expect(await client.resolve6(`web.shop.${domain}`)).toEqual(['fd00::1']);
    expect(await client.resolveSrv(`web.shop.${domain}`)).toEqual([
      { name: `web.shop.${domain}`, port: 80, priority: 0, weight: 100 },
    ]);
    expect(await client.reverse('10.0.0.1')).toEqual([`web.shop.${domain}`]);
    expect(await client.resolveCname(`out.shop.${domain}`)).toEqual(['db.example']);
  });

  test('more than UDP carries comes by TCP', async () => {
    expect(new Set(await client.resolve4(`many.shop.${domain}`)).size).toBe(300);
    expect(requests).toEqual(['1 udp', '1 tcp']);
  });

  test('an alias with the addresses that others know; no data; failure', async () => {
    upstream = (query) => Promise.resolve(respond(query, [192, 0, 2, 9]));
    expect(await client.resolve4(`out.shop.${domain}`)).toEqual(['192.0.2.9']);
    await expect(client.resolveTxt(`web.shop.${domain}`)).rejects.toMatchObject({ code: 'ENODATA' });
    upstream = () => Promise.reject(new DnsError('NO_UPSTREAM', 'none'));
    await expect(client.resolve4('elsewhere.example')).rejects.toMatchObject({ code: 'ESERVFAIL' });
    expect(failures).toEqual(['NO_UPSTREAM']);
  });
});

test('questions under way are bounded: above it SERVFAIL at once; answered ones make room', async () => {
  const waiting: (() => void)[] = [];
  upstream = (query) => new Promise((resolve) => waiting.push(() => resolve(respond(query, [1, 1, 1, 1]))));
  const asked = ['a', 'b', 'c', 'd'].map((name) => ask(`${name}.example.com`));
  expect((await asked[3]!).bytes[3]! & 15).toBe(2);
  expect(failures).toEqual(['TOO_MANY_QUERIES']);
  expect((await ask(`web.shop.${domain}`)).rcode).toBe(0);
  for (const answer of waiting.splice(0)) answer();
  expect((await Promise.all(asked)).map(({ rcode }) => rcode)).toEqual([0, 0, 0, 2]);
  const again = ask('e.example.com');
  waiting.shift()!();
  expect((await again).rcode).toBe(0);
  expect((await ask('a.example.com')).rcode).toBe(0);
  expect(waiting).toEqual([]);
});

test('what is no question, or none that we answer', () => {
  const answers: Buffer[] = [];
  const send = (bytes: Buffer) => resolver.handle(bytes, 'udp', (answer) => answers.push(answer));
  const query = encodeQuery(9, { name: 'a.example', type: 1, class: 1 });
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(query);
    change(bytes);
    return bytes;
  };
  send(Buffer.from('hello'));
  send(changed((bytes) => bytes.writeUInt16BE(0x8000, 2)));
  expect(answers).toEqual([]);
  send(query.subarray(0, 20));
  send(changed((bytes) => bytes.writeUInt16BE(0x2800, 2)));
  send(encodeQuery(9, { name: 'version.bind', type: 16, class: 3 }));
  send(changed((bytes) => bytes.writeUInt8(1, bytes.length - 5)));
  send(encodeQuery(9, { name: `bad.shop.${domain}`, type: 1, class: 1 }));
  expect(answers.map((bytes) => bytes[3]! & 15)).toEqual([1, 4, 5, 0, 2]);
  // BADVERS is 16: its upper part stands in OPT.
  expect(answers[3]![answers[3]!.length - 6]).toBe(1);
  for (const answer of answers) expect(answer.readUInt16BE(0)).toBe(9);
});

test('the spelling and id of each client come back, also from the cache', async () => {
  upstream = (query) => Promise.resolve(respond(query, [1, 2, 3, 4]));
  for (const spelling of ['wWw.ExAmPlE', 'WWW.example']) {
    const query = encodeQuery(0x1234, { name: 'www.example', type: 1, class: 1 });
    query.write(spelling.slice(0, 3), 13);
    query.write(spelling.slice(4), 17);
    const answer = await new Promise<Buffer>((resolve) => resolver.handle(query, 'tcp', resolve));
    expect(answer.readUInt16BE(0)).toBe(0x1234);
    expect(answer.subarray(12, 29).equals(query.subarray(12, 29))).toBe(true);
    expect(parseQuery(query).question.name).toBe('www.example');
  }
  expect(requests.filter((what) => what === 'upstream')).toHaveLength(1);
});
