import { once } from 'node:events';
import net from 'node:net';
import { expect, test } from '@jest/globals';
import { HboneServer } from '../../mesh/hbone/index.js';
import { createLog } from '../../mesh/log/index.js';
import { Authorizer } from '../../mesh/policy/index.js';
import { serviceWith, updateWith, workloadWith } from '../../mesh/store/fixtures.js';
import { createStore } from '../../mesh/store/index.js';
import { ConnectionTelemetry } from '../../mesh/telemetry/index.js';
import { CLIENT_ID, HboneLab, SERVER_ID } from '../../test/support/hbone.js';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import type { ApplicationDialer } from '../capture/index.js';
import {
  type Endpoint,
  type HboneRoute,
  type Route,
  type RouteRequest,
  type Router,
  WorkloadTexts,
} from '../routing/index.js';
import { ConnectionTable } from './connections/connection-table.js';
import { PolicyGuard } from './connections/policy-guard.js';
import { WaitingRoom } from './connections/waiting-room.js';
import { newTunnelCounters, StoreView, type TunnelContext } from './context.js';
import { EastWestAcceptor } from './east-west.js';
import type { WorkerPod } from './messages.js';
import { OutboundAcceptor } from './outbound.js';

const HOST = '127.0.0.1';
const WEB = 'web.shop.svc.cluster.local';
const GATEWAY_ID = 'spiffe://cluster.local/ns/shop/sa/gateway';

const podOf = (name: string): WorkerPod => ({
  uid: name,
  name,
  namespace: 'shop',
  serviceAccount: name,
  isEastWestGateway: name === 'gateway',
  netnsFd: -1,
  netnsCookie: 0n,
  outboundFds: [],
  inboundFds: [],
  hboneFds: [],
});

/** Gives the routes that a test has written down, one per question. */
class ScriptedRouter {
  routes: readonly Route[] = [];
  /** Of the gateway. */
  inner: readonly Route[] = [];
  readonly asked: RouteRequest[] = [];
  readonly failures: string[] = [];
  live = 0;
  #innerAsked = 0;

  route(request: RouteRequest): Route {
    this.asked.push(request);
    return this.routes[this.asked.length - 1] ?? { kind: 'refused', reason: 'no more', service: null };
  }

  routeToService(): Route {
    return this.inner[this.#innerAsked++]!;
  }

  connected(): void {}

  failed({ key }: Endpoint): void {
    this.failures.push(key);
  }

  joined(): void {
    this.live++;
  }

  left(): void {
    this.live--;
  }
}

/** A pod whose connections come to `captured`, peers behind `lab.listening`, and another network's gateway. */
class OutboundLab implements Disposable {
  readonly lab = new HboneLab();
  readonly captured = new ListeningSocket();
  readonly gateway = new ListeningSocket();
  readonly router = new ScriptedRouter();
  readonly counters = newTunnelCounters();
  readonly connections: ConnectionTable;
  readonly acceptor: OutboundAcceptor;
  readonly #sockets: net.Socket[] = [];

  constructor() {
    const { reactor } = this.lab.t;
    const log = createLog({ level: 'silent', component: 'test' });
    const store = createStore();
    const workloads = ['client', 'gateway'].map((name) =>
      workloadWith({ uid: `cluster//Pod/shop/${name}`, name, namespace: 'shop', serviceAccount: name }),
    );
    const gateway = { ...workloads[1]!, services: new Map([['shop/gateway.shop', []]]) };
    const services = [WEB, 'gateway.shop'].map((hostname) => serviceWith({ namespace: 'shop', hostname }));
    store.apply(updateWith({ snapshot: true, workloads: [workloads[0]!, gateway], services }));
    const storeView = new StoreView({ network: '' }, { store });
    const { counters, router } = this;
    const connections = new ConnectionTable({ quietMs: 60_000 }, { reactor });
    this.connections = connections;
    const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
    const context: TunnelContext = {
      reactor,
      store,
      storeView,
      connections,
      counters,
      guard: new PolicyGuard({ reactor, store, storeView, connections, counters, authorizer }),
      texts: new WorkloadTexts(),
      router: router as unknown as Router,
      hbone: this.lab.client,
      telemetry: new ConnectionTelemetry(
        { accessLog: null },
        { nowMs: () => reactor.nowMs, wallClockMs: Date.now },
      ),
      waitingRoom: new WaitingRoom({ maxWaitMs: 100, maxWaiting: 10 }, { reactor, log }),
      originalDestinations: { take: () => ({ address: '10.96.0.1', port: 80 }) },
      applicationDialer: null as unknown as ApplicationDialer,
      network: '',
      hasCertificate: () => true,
    };
    this.acceptor = new OutboundAcceptor(podOf('client'), context);
    reactor.listen({ fd: this.captured.fd }, this.acceptor);
    const acceptor = new EastWestAcceptor(podOf('gateway'), context);
    const server = new HboneServer({}, { reactor, acceptor, verifyClient: () => CLIENT_ID, log });
    const tls = this.lab.context(this.lab.ca.issue(GATEWAY_ID));
    reactor.listen({ fd: this.gateway.fd, tls: () => tls }, server);
  }

  /** An endpoint whose HBONE server listens at `port`. */
  endpoint(key: string, port: number, fields: Partial<HboneRoute> = {}): HboneRoute {
    const service = serviceWith({ namespace: 'shop', hostname: WEB });
    return {
      kind: 'hbone',
      via: 'workload',
      nextHop: { address: HOST, port },
      target: { address: HOST, port: 8080 },
      expectedIdentities: [SERVER_ID],
      workload: workloadWith({ uid: key, name: key }),
      service,
      endpoint: { key, set: { endpoints: [0, 1, 2] } } as unknown as Endpoint,
      gateway: null,
      ...fields,
    };
  }

  /** One on another network, whose gateway listens at `port`. */
  remote(key: string, port: number, hostname = WEB): HboneRoute {
    const authority = `${hostname}:80`;
    return this.endpoint(key, port, {
      gateway: { expectedIdentities: [GATEWAY_ID], authority, key: `gateway ${port}` },
    });
  }

  connect(): { socket: net.Socket; text: () => string; error: () => string } {
    const socket = net.connect(this.captured.port, HOST);
    this.#sockets.push(socket);
    let [text, code] = ['', ''];
    socket.on('data', (bytes) => {
      text += bytes;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      code = error.code!;
    });
    return { socket, text: () => text, error: () => code };
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    this.lab[Symbol.dispose]();
    this.captured.close();
    this.gateway.close();
  }
}

function closedPort(): number {
  const socket = new ListeningSocket();
  socket.close();
  return socket.port;
}

test('goes on to another endpoint with what the application has sent already, once', async () => {
  using bed = new OutboundLab();
  const { t, listening } = bed.lab;
  bed.router.routes = [bed.endpoint('a', closedPort()), bed.endpoint('b', listening.port)];
  const app = bed.connect();
  app.socket.end('hello');
  await t.during(once(app.socket, 'close'));
  expect([app.text(), app.error()]).toEqual(['hello', '']);
  expect(bed.router.asked.map(({ tried }) => tried)).toEqual([[], ['a']]);
  expect([bed.router.failures, bed.router.live, bed.counters.retriedConnects]).toEqual([['a'], 0, 1]);
  expect(bed.connections.size).toBe(0);
});

test('three endpoints are tried, no more', async () => {
  using bed = new OutboundLab();
  bed.router.routes = ['a', 'b', 'c', 'd'].map((key) => bed.endpoint(key, closedPort()));
  const app = bed.connect();
  await bed.lab.t.until(() => app.error() !== '');
  expect(app.error()).toBe('ECONNRESET');
  expect([bed.router.asked.length, bed.router.live, bed.connections.size]).toEqual([3, 0, 0]);
});

test('a released pod is dialled from no more, also where an attempt fails only then', async () => {
  using bed = new OutboundLab();
  const { t, listening } = bed.lab;
  const silent = new ListeningSocket();
  bed.router.routes = [bed.endpoint('a', silent.port), bed.endpoint('b', listening.port)];
  const app = bed.connect();
  await t.until(() => bed.router.asked.length === 1);
  bed.acceptor.stop();
  // What waits in its queue is reset.
  silent.close();
  await t.until(() => app.error() !== '');
  expect(app.error()).toBe('ECONNRESET');
  expect([bed.router.asked.length, bed.counters.retriedConnects]).toEqual([1, 0]);
  expect(bed.lab.acceptor.requests).toEqual([]);
});

test('a gateway that is gone: on through another one, identities checked at both ends', async () => {
  using bed = new OutboundLab();
  const { t, listening, acceptor } = bed.lab;
  const dead = closedPort();
  bed.router.routes = [bed.remote('a', dead), bed.remote('b', bed.gateway.port)];
  bed.router.inner = [bed.endpoint('there', listening.port)];
  const app = bed.connect();
  app.socket.end('through two tunnels');
  await t.during(once(app.socket, 'close'));
  expect([app.text(), app.error()]).toEqual(['through two tunnels', '']);
  expect(bed.router.asked[1]!.tried).toEqual(['a', `gateway ${dead}`]);
  expect(acceptor.requests).toHaveLength(1);
  expect(acceptor.requests[0]).toMatchObject({
    authority: `${WEB}:80`,
    peerIdentity: CLIENT_ID,
    metadata: { forwardedNetwork: '', forwardedHost: WEB },
  });
  // Neither a gateway nor a server of another identity gets anything.
  const other = ['spiffe://cluster.local/ns/shop/sa/other'];
  const { gateway, ...remote } = bed.remote('c', bed.gateway.port);
  bed.router.routes = [
    ...bed.router.routes,
    { ...remote, gateway: { ...gateway!, expectedIdentities: other } },
    { ...remote, gateway, expectedIdentities: other },
  ];
  bed.router.inner = [...bed.router.inner, bed.endpoint('there', listening.port)];
  const refused = bed.connect();
  refused.socket.write('secret');
  await t.until(() => refused.error() !== '');
  expect([bed.router.asked.length, refused.error()]).toEqual([5, 'ECONNRESET']);
  expect(acceptor.requests).toHaveLength(1);
});

test('the gateway answers that its endpoint is gone: another attempt, and what was sent goes along', async () => {
  using bed = new OutboundLab();
  const { t, listening } = bed.lab;
  bed.router.routes = ['a', 'b'].map((key) => bed.remote(key, bed.gateway.port));
  bed.router.inner = [bed.endpoint('gone', closedPort()), bed.endpoint('there', listening.port)];
  const app = bed.connect();
  app.socket.end('again');
  await t.during(once(app.socket, 'close'));
  expect([app.text(), app.error()]).toEqual(['again', '']);
  expect(bed.router.failures.sort()).toEqual(['a', 'gone']);
  // The connection beyond the gateway stays in the pool, and so does the gateway's part of it.
  await t.until(() => bed.router.live === 1 && bed.connections.size === 1);
});

test('a gateway: no way to itself, and a caller that gives up says nothing of its endpoints', async () => {
  using bed = new OutboundLab();
  const { t, listening } = bed.lab;
  const address = { address: HOST, port: bed.gateway.port };
  const hop = bed.lab.hop({ address, expectedIdentities: [GATEWAY_ID] });
  bed.router.inner = [bed.endpoint('there', listening.port), bed.endpoint('there', listening.port)];
  const itself = bed.lab.open('gateway.shop:15008', hop);
  await t.until(() => itself.isDone);
  expect(itself.failure).toMatchObject({ status: 503 });
  const first = await bed.lab.established(`${WEB}:80`, hop);
  const hasty = bed.lab.open(`${WEB}:80`, hop);
  hasty.tunnel!.reset();
  await t.until(() => bed.connections.size === 1);
  first.tunnel!.reset();
  await t.until(() => bed.connections.size === 0);
  expect([bed.router.failures, bed.router.live]).toEqual([[], 0]);
});
