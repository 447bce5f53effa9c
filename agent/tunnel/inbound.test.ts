import { once } from 'node:events';
import net from 'node:net';
import { expect, test } from '@jest/globals';
import { HboneServer } from '../../mesh/hbone/index.js';
import { createLog } from '../../mesh/log/index.js';
import { Authorizer } from '../../mesh/policy/index.js';
import { createStore, type Store, type Workload } from '../../mesh/store/index.js';
import { ConnectionTelemetry } from '../../mesh/telemetry/index.js';
import { CLIENT_ID, HboneLab, SERVER_ID } from '../../test/support/hbone.js';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { FLAG, FRAME, RawHttp2 } from '../../test/support/raw-http2.js';
import { ApplicationDialer } from '../capture/index.js';
import { Router, WorkloadTexts } from '../routing/index.js';
import { ConnectionTable } from './connections/connection-table.js';
import { drain } from './connections/drain.js';
import { PolicyGuard } from './connections/policy-guard.js';
import { WaitingRoom } from './connections/waiting-room.js';
import { newTunnelCounters, StoreView, type TunnelContext } from './context.js';
import { InboundAcceptor, PlaintextAcceptor } from './inbound.js';
import type { WorkerPod } from './messages.js';

const HOST = '127.0.0.1';
const WEB = 'web.shop.svc.cluster.local';

/** A pod without BPF, in our own namespace: tunnels to 127.0.0.1 reach node:net applications. */
class InboundLab implements Disposable {
  readonly lab = new HboneLab();
  readonly listening = new ListeningSocket();
  readonly plain = new ListeningSocket();
  readonly connections: ConnectionTable;
  readonly counters = newTunnelCounters();
  readonly shownPorts = new Int32Array(new SharedArrayBuffer(4096));
  readonly telemetry = new ConnectionTelemetry(
    { accessLog: 'text' },
    { nowMs: () => this.lab.t.reactor.nowMs, wallClockMs: Date.now },
  );
  readonly store: Store;
  readonly storeView: StoreView;
  readonly guard: PolicyGuard;
  readonly server: HboneServer;
  readonly #apps: net.Server[] = [];
  readonly #sockets = new Set<net.Socket>();

  constructor(quietMs = 60_000) {
    const { reactor } = this.lab.t;
    this.connections = new ConnectionTable({ quietMs }, { reactor });
    const store = createStore();
    const none = { services: [], policies: [], removed: [], removedPolicies: [] };
    store.apply({ snapshot: true, workloads: [workload()], ...none });
    const fd = -1;
    const texts = new WorkloadTexts();
    const outlierDetection = { consecutiveConnectFailures: 0, baseEjectionMs: 1, maxEjectionPercent: 0 };
    const log = createLog({ level: 'silent', component: 'test' });
    const handles = {
      originalDestinationsFd: fd,
      callerStorageFd: fd,
      shownPorts: this.shownPorts.buffer as SharedArrayBuffer,
      workers: 1,
    };
    const storeView = new StoreView({ network: '' }, { store });
    this.storeView = storeView;
    const { connections, counters } = this;
    const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
    this.store = store;
    this.guard = new PolicyGuard({ reactor, store, storeView, connections, counters, authorizer });
    const context: TunnelContext = {
      reactor,
      store,
      storeView,
      guard: this.guard,
      texts,
      router: new Router(
        { network: '', outlierDetection },
        {
          store,
          texts,
          hostnames: { addressesOf: () => [] },
          nowMs: () => reactor.nowMs,
          random: Math.random,
        },
      ),
      hbone: this.lab.client,
      telemetry: this.telemetry,
      connections: this.connections,
      waitingRoom: new WaitingRoom({ maxWaitMs: 100, maxWaiting: 10 }, { reactor, log }),
      originalDestinations: { take: () => null },
      applicationDialer: new ApplicationDialer({ workerIndex: 0, handles }),
      counters: this.counters,
      network: '',
      hasCertificate: () => true,
    };
    this.server = new HboneServer(
      {},
      {
        reactor,
        acceptor: new InboundAcceptor(POD, context),
        verifyClient: () => CLIENT_ID,
        log,
      },
    );
    const tls = this.lab.context(this.lab.ca.issue(SERVER_ID));
    reactor.listen({ fd: this.listening.fd, tls: () => tls }, this.server);
    reactor.listen({ fd: this.plain.fd }, new PlaintextAcceptor(POD, context));
  }

  async app(onSocket: (socket: net.Socket) => void): Promise<number> {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      this.#sockets.add(socket.on('error', () => {}));
      onSocket(socket);
    });
    this.#apps.push(server);
    server.listen(0, HOST);
    await once(server, 'listening');
    return (server.address() as net.AddressInfo).port;
  }

  open(authority: string) {
    const address = { address: HOST, port: this.listening.port };
    return this.lab.open(authority, this.lab.hop({ address }));
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    for (const app of this.#apps) app.close();
    this.lab[Symbol.dispose]();
    this.listening.close();
    this.plain.close();
  }
}

const POD: WorkerPod = {
  uid: 'uid',
  name: 'server',
  namespace: 'shop',
  serviceAccount: 'server',
  isEastWestGateway: false,
  netnsFd: -1,
  netnsCookie: 0n,
  outboundFds: [],
  inboundFds: [],
  hboneFds: [],
};

function workload(): Workload {
  return {
    uid: 'cluster//Pod/shop/server',
    name: 'server',
    namespace: 'shop',
    addresses: [HOST],
    hostname: '',
    network: '',
    tunnelProtocol: 'hbone',
    trustDomain: 'cluster.local',
    serviceAccount: 'server',
    node: 'n1',
    canonicalName: 'server',
    canonicalRevision: 'latest',
    workloadType: 'pod',
    workloadName: 'server',
    nativeTunnel: false,
    authorizationPolicies: [],
    healthy: true,
    clusterId: 'cluster',
    waypoint: null,
    networkGateway: null,
    services: new Map([[`shop/${WEB}`, [{ servicePort: 80, targetPort: 15008 }]]]),
    applicationTunnel: null,
    locality: { region: '', zone: '', subzone: '' },
    hostNetwork: false,
    capacity: 1,
  };
}

test('an application that has ended its side and stops reading for longer than the linger time gets everything', async () => {
  using bed = new InboundLab();
  const { t } = bed.lab;
  const chunk = Buffer.alloc(32 << 10, 'x');
  let sent = 0;
  let received = 0;
  let outcome = '';
  let resume = () => {};
  const port = await bed.app((socket) => {
    socket.end();
    socket.pause();
    resume = () => socket.resume();
    socket.on('data', (bytes) => {
      received += bytes.length;
    });
    socket.on('end', () => {
      outcome = 'end';
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      outcome = error.code!;
    });
  });
  const client = bed.open(`${HOST}:${port}`);
  await t.until(() => client.has('end'));
  // All that the kernel takes, and a little more; then the end.
  const waiting = () => t.reactor.native.stats().pendingBytes;
  while (waiting() === 0) {
    client.send(chunk);
    sent += chunk.length;
    await t.for(3);
  }
  client.send('', true);
  await t.for(600);
  expect(waiting()).toBeGreaterThan(0);
  expect(bed.connections.size).toBe(1);
  resume();
  await t.until(() => outcome !== '');
  expect({ outcome, received }).toEqual({ outcome: 'end', received: sent });
  await t.until(() => bed.connections.size === 0);
});

test('a drain waits for the last bytes of tunnels that have ended', async () => {
  using bed = new InboundLab();
  const { t } = bed.lab;
  const bytes = 2 << 20;
  const port = await bed.app((socket) => socket.end(Buffer.alloc(bytes, 'x')));
  using peer = new RawHttp2(bed.listening.port, bed.lab.ca.issue(CLIENT_ID));
  await t.during(peer.connected);
  const word = (value: number) => Buffer.from(Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value));
  peer.preface();
  peer.send(FRAME.SETTINGS, 0, 0, Buffer.concat([Buffer.of(0, 4), word(2 * bytes)]));
  peer.send(FRAME.WINDOW_UPDATE, 0, 0, word(2 * bytes));
  peer.socket.pause();
  peer.connect(1, `${HOST}:${port}`, FLAG.END_HEADERS | FLAG.END_STREAM);
  await t.until(() => bed.connections.size === 1);
  // The peer does not read, its windows are open: the tunnel ends with most of it in buffers on this side.
  await t.until(() => bed.connections.size === 0);
  let isDrained = false;
  const { reactor } = t;
  const { connections, server } = bed;
  const deps = {
    reactor,
    connections,
    servers: [server],
    client: bed.lab.client,
    waiting: () => 0,
    lingering: () => reactor.lingering,
  };
  drain(20_000, deps, () => {
    isDrained = true;
  });
  await t.for(200);
  expect(isDrained).toBe(false);
  peer.socket.resume();
  await t.until(() => peer.of(FRAME.PING).length > 0);
  const ping = peer.of(FRAME.PING)[0]!;
  peer.send(FRAME.PING, FLAG.ACK, 0, ping.payload);
  await t.until(() => peer.hasEnded);
  const data = peer.of(FRAME.DATA, 1);
  expect(data.reduce((sum, { payload }) => sum + payload.length, 0)).toBe(bytes);
  expect(data.at(-1)!.flags & FLAG.END_STREAM).toBe(FLAG.END_STREAM);
  await t.until(() => isDrained);
}, 30_000);

test('a drain cuts what is left at its deadline, and one with nothing to wait for is over at once', async () => {
  using bed = new InboundLab();
  const { t } = bed.lab;
  const { reactor } = t;
  const outcomes: string[] = [];
  const port = await bed.app((socket) => {
    socket.on('end', () => outcomes.push('end'));
    socket.on('error', (error: NodeJS.ErrnoException) => outcomes.push(error.code!));
    socket.resume();
  });
  const client = bed.open(`${HOST}:${port}`);
  await t.until(() => client.has('established'));
  const { connections, server } = bed;
  const deps = {
    reactor,
    connections,
    servers: [server],
    client: bed.lab.client,
    waiting: () => 0,
    lingering: () => reactor.lingering,
  };
  const begin = performance.now();
  let isDrained = false;
  drain(200, deps, () => {
    isDrained = true;
  });
  await t.until(() => isDrained && client.isDone && outcomes.length > 0);
  expect(performance.now() - begin).toBeGreaterThan(150);
  expect(client.events).toEqual(['established', 'reset']);
  expect(outcomes).toEqual(['ECONNRESET']);

  using idle = new InboundLab();
  let isOver = false;
  const idleDeps = {
    reactor: idle.lab.t.reactor,
    connections: idle.connections,
    servers: [idle.server],
    client: idle.lab.client,
    waiting: () => 0,
    lingering: () => 0,
  };
  drain(60_000, idleDeps, () => {
    isOver = true;
  });
  await idle.lab.t.until(() => isOver, 'an idle drain', 2000);
});

test('from half of the deadline on a drain ends what is quiet by FIN, both ways; what goes on sending is reset', async () => {
  using bed = new InboundLab(50);
  const { t } = bed.lab;
  const { reactor } = t;
  const outcomes: string[] = [];
  const sockets: net.Socket[] = [];
  const port = await bed.app((socket) => {
    sockets.push(socket);
    const name = sockets.length === 1 ? 'polite' : 'rude';
    socket.on('end', () => {
      outcomes.push(`${name} end`);
      if (name === 'polite') socket.end();
      else socket.write('more');
    });
    socket.on('error', () => {});
    socket.resume();
  });
  const polite = bed.open(`${HOST}:${port}`);
  await t.until(() => polite.has('established'));
  const rude = bed.open(`${HOST}:${port}`);
  await t.until(() => rude.has('established'));
  let isDrained = false;
  const deps = {
    reactor,
    connections: bed.connections,
    servers: [bed.server],
    client: bed.lab.client,
    waiting: () => 0,
    lingering: () => reactor.lingering,
  };
  const begin = performance.now();
  const counts = drain(2_000, deps, () => {
    isDrained = true;
  });
  await t.until(() => polite.has('end'));
  expect(performance.now() - begin).toBeGreaterThan(900);
  polite.tunnel!.endStream();
  await t.until(() => isDrained && outcomes.length === 2);
  expect(performance.now() - begin).toBeLessThan(1_900);
  expect(outcomes.sort()).toEqual(['polite end', 'rude end']);
  expect(polite.events).toEqual(['established', 'end']);
  expect(rude.events).toEqual(['established', 'end', 'reset']);
  expect(counts).toEqual({ ended: 2, reset: 0 });
});

test('a port of the mesh is no target, by address or as the target port of a service', async () => {
  using bed = new InboundLab();
  for (const authority of [`${HOST}:15008`, `${WEB}:80`]) {
    const client = bed.open(authority);
    await bed.lab.t.until(() => client.isDone);
    expect(client.failure).toMatchObject({ status: 503 });
  }
  expect(bed.counters.resetIllegalPort).toBe(1);
});

test('what is meant for another address is taken by the application itself, or refused; never carried on', async () => {
  using bed = new InboundLab();
  const { t } = bed.lab;
  let callers = 0;
  const port = await bed.app((socket) => {
    callers++;
    socket.end();
  });
  const elsewhere = `192.0.2.1:${port}`;
  const refused = bed.open(elsewhere);
  await t.until(() => refused.isDone);
  expect(refused.failure).toMatchObject({ status: 400 });
  const none = { services: [], policies: [], removed: [], removedPolicies: [] };
  const tunnelTo = (port: number) => ({ protocol: 'none' as const, port });
  for (const [applicationTunnel, outcome] of [
    [tunnelTo(0), 'established'],
    [tunnelTo(port), 'established'],
    [tunnelTo(15008), 'failed'],
  ] as const) {
    bed.store.apply({ snapshot: true, workloads: [{ ...workload(), applicationTunnel }], ...none });
    bed.storeView.forget();
    const client = bed.open(elsewhere);
    await t.until(() => client.events.length > 0);
    expect(client.events[0]).toBe(outcome);
  }
  await t.until(() => callers === 2);
});

test('where no port is left to show an application, one connection is refused, by tunnel or plain', async () => {
  using bed = new InboundLab();
  bed.shownPorts.fill(1);
  const client = bed.open(`${HOST}:80`);
  await bed.lab.t.until(() => client.isDone);
  expect(client.failure).toMatchObject({ status: 503 });
  const socket = net.connect(bed.plain.port, HOST);
  const [error] = (await bed.lab.t.during(once(socket, 'error'))) as [NodeJS.ErrnoException];
  expect(error.code).toBe('ECONNRESET');
  expect(bed.lab.t.reactor.counters.exceptions).toBe(0);
});
