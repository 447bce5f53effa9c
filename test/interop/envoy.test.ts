import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { ensureEnvoy } from '../support/envoy.js';
import { accept, CLIENT_ID, HboneLab, SERVER_ID } from '../support/hbone.js';
import { nodeTlsOptions } from '../support/test-ca.js';

jest.setTimeout(60_000);

const TYPE = 'type.googleapis.com/envoy.extensions';
const running: { process: ChildProcess; servers: net.Server[] } = { process: null as never, servers: [] };

afterEach(() => {
  running.process?.kill('SIGKILL');
  for (const server of running.servers.splice(0)) server.close();
});

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Runs Envoy until the test ends; resolves when it listens on `port`. */
async function startEnvoy(lab: HboneLab, port: number, resources: object): Promise<void> {
  const args = ['--config-yaml', JSON.stringify({ static_resources: resources }), '--use-dynamic-base-id'];
  const envoy = spawn(ensureEnvoy(), [...args, '--concurrency', '1', '-l', 'error'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  running.process = envoy;
  let log = '';
  envoy.stderr!.on('data', (chunk) => {
    log += chunk;
  });
  for (let tries = 0; tries < 600; tries++) {
    if (envoy.exitCode !== null) throw new Error(`Envoy ended: ${log}`);
    if (await isListening(port)) return;
    await lab.t.for(50);
  }
  throw new Error(`Envoy does not listen: ${log}`);
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function tlsContext(lab: HboneLab, identity: string, peer: string): object {
  const { cert, key, ca } = nodeTlsOptions(lab.ca.issue(identity));
  return {
    common_tls_context: {
      alpn_protocols: ['h2'],
      tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
      tls_certificates: [{ certificate_chain: { inline_string: cert }, private_key: { inline_string: key } }],
      validation_context: {
        trusted_ca: { inline_string: ca.join('') },
        match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: peer } }],
      },
    },
  };
}

const address = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } });
const cluster = (name: string, port: number, more: object = {}) => ({
  name,
  type: 'STATIC',
  connect_timeout: '5s',
  load_assignment: {
    cluster_name: name,
    endpoints: [{ lb_endpoints: [{ endpoint: { address: address(port) } }] }],
  },
  ...more,
});

describe('Envoy as HBONE client of our server (tunneling_config)', () => {
  async function start(lab: HboneLab, serverId = SERVER_ID): Promise<number> {
    const port = await freePort();
    const tunnel = {
      '@type': `${TYPE}.filters.network.tcp_proxy.v3.TcpProxy`,
      stat_prefix: 'in',
      cluster: 'hbone',
      tunneling_config: {
        hostname: '127.0.0.1:8080',
        headers_to_add: [{ header: { key: 'baggage', value: 'k8s.namespace.name=envoy' } }],
      },
    };
    await startEnvoy(lab, port, {
      listeners: [
        {
          address: address(port),
          filter_chains: [{ filters: [{ name: 'envoy.filters.network.tcp_proxy', typed_config: tunnel }] }],
        },
      ],
      clusters: [
        cluster('hbone', lab.listening.port, {
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
              '@type': `${TYPE}.upstreams.http.v3.HttpProtocolOptions`,
              explicit_http_config: { http2_protocol_options: {} },
            },
          },
          transport_socket: {
            name: 'envoy.transport_sockets.tls',
            typed_config: {
              '@type': `${TYPE}.transport_sockets.tls.v3.UpstreamTlsContext`,
              ...tlsContext(lab, CLIENT_ID, serverId),
            },
          },
        }),
      ],
    });
    // the probe that found it listening has opened a tunnel
    await lab.t.for(100);
    lab.acceptor.requests.length = 0;
    lab.acceptor.handlers.length = 0;
    return port;
  }

  async function dial(lab: HboneLab, port: number) {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    const state = { socket, received: 0, text: '', ended: false, closed: false, reset: false };
    socket.on('data', (chunk) => {
      state.received += chunk.length;
      if (state.text.length < 100) state.text += chunk;
    });
    socket.on('end', () => {
      state.ended = true;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      state.reset = error.code === 'ECONNRESET';
    });
    socket.on('close', () => {
      state.closed = true;
    });
    await lab.t.during(once(socket, 'connect'));
    return state;
  }

  test('bytes, identity, headers, half-close both ways', async () => {
    using lab = new HboneLab();
    const port = await start(lab);
    const client = await dial(lab, port);
    client.socket.write('hello');
    await lab.t.until(() => client.text === 'hello');
    expect(lab.acceptor.requests[0]).toMatchObject({
      authority: '127.0.0.1:8080',
      peerIdentity: CLIENT_ID,
      metadata: { baggage: { namespace: 'envoy' } },
    });
    client.socket.end(' bye');
    await lab.t.until(() => client.ended);
    expect(client.text).toBe('hello bye');
    expect(lab.acceptor.handlers[0]!.events).toEqual(['end']);
  });

  test('16 MiB there and back', async () => {
    using lab = new HboneLab();
    const client = await dial(lab, await start(lab));
    client.socket.end(Buffer.alloc(16 * 1024 * 1024, 'x'));
    await lab.t.until(() => client.ended, 'the echo', 40_000);
    expect(client.received).toBe(16 * 1024 * 1024);
  });

  test('150 tunnels at once', async () => {
    using lab = new HboneLab();
    const port = await start(lab);
    const clients = await Promise.all(Array.from({ length: 150 }, () => dial(lab, port)));
    for (const one of clients) one.socket.write('x');
    await lab.t.until(() => clients.every((one) => one.text === 'x'));
    for (const one of clients) one.socket.destroy();
    await lab.t.until(() => lab.acceptor.handlers.every((one) => one.isDone));
  });

  test('a refused tunnel and a reset one end the connection there', async () => {
    using lab = new HboneLab({ decide: accept });
    const port = await start(lab);
    const first = await dial(lab, port);
    first.socket.write('x');
    await lab.t.until(() => lab.acceptor.handlers[0]?.receivedBytes === 1);
    lab.acceptor.handlers[0]!.tunnel!.reset();
    await lab.t.until(() => first.reset || first.ended);
    lab.acceptor.decide = (request) => request.refuse(401);
    const second = await dial(lab, port);
    second.socket.write('x');
    await lab.t.until(() => second.reset || second.ended);
    expect(second.received).toBe(0);
    first.socket.destroy();
    second.socket.destroy();
  });

  test('a connection reset at its application is a reset here', async () => {
    using lab = new HboneLab({ decide: accept });
    const client = await dial(lab, await start(lab));
    client.socket.write('half a me');
    await lab.t.until(() => lab.acceptor.handlers[0]?.receivedBytes === 9);
    client.socket.resetAndDestroy();
    await lab.t.until(() => lab.acceptor.handlers[0]!.isDone);
    expect(lab.acceptor.handlers[0]!.events).toEqual(['reset']);
  });
});

describe('Envoy as terminating HBONE server of our client', () => {
  /** Applications behind Envoy. */
  async function application(onSocket: (socket: net.Socket) => void): Promise<number> {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {});
      onSocket(socket);
    });
    running.servers.push(server.listen(0, '127.0.0.1'));
    await once(server, 'listening');
    return (server.address() as net.AddressInfo).port;
  }

  async function start(lab: HboneLab, applicationPort: number): Promise<ReturnType<HboneLab['hop']>> {
    const port = await freePort();
    const manager = {
      '@type': `${TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: 'in',
      codec_type: 'HTTP2',
      http2_protocol_options: { allow_connect: true, max_concurrent_streams: 100 },
      upgrade_configs: [{ upgrade_type: 'CONNECT' }],
      http_filters: [
        {
          name: 'envoy.filters.http.router',
          typed_config: { '@type': `${TYPE}.filters.http.router.v3.Router` },
        },
      ],
      route_config: {
        virtual_hosts: [
          {
            name: 'all',
            domains: ['*'],
            routes: [
              {
                match: { connect_matcher: {} },
                route: {
                  cluster: 'application',
                  timeout: '0s',
                  upgrade_configs: [{ upgrade_type: 'CONNECT', connect_config: {} }],
                },
              },
            ],
          },
        ],
      },
    };
    await startEnvoy(lab, port, {
      listeners: [
        {
          address: address(port),
          filter_chains: [
            {
              filters: [{ name: 'envoy.filters.network.http_connection_manager', typed_config: manager }],
              transport_socket: {
                name: 'envoy.transport_sockets.tls',
                typed_config: {
                  '@type': `${TYPE}.transport_sockets.tls.v3.DownstreamTlsContext`,
                  require_client_certificate: true,
                  ...tlsContext(lab, SERVER_ID, CLIENT_ID),
                },
              },
            },
          ],
        },
      ],
      clusters: [cluster('application', applicationPort)],
    });
    return lab.hop({ address: { address: '127.0.0.1', port } });
  }

  test('bytes, early ones too, and half-close both ways', async () => {
    using lab = new HboneLab();
    const hop = await start(lab, await application((socket) => socket.pipe(socket)));
    const client = lab.open('10.1.2.3:8080', hop);
    client.send('hello', true);
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['established', 'end']);
    expect(client.received.toString()).toBe('hello');
  });

  test('16 MiB there and back, 150 tunnels at once', async () => {
    using lab = new HboneLab();
    const hop = await start(lab, await application((socket) => socket.pipe(socket)));
    const client = lab.open('10.1.2.3:8080', hop);
    client.send(Buffer.alloc(16 * 1024 * 1024, 'x'), true);
    await lab.t.until(() => client.isDone, 'the echo', 40_000);
    expect(client.failure ?? client.resetCause).toBeNull();
    expect(client.receivedBytes).toBe(16 * 1024 * 1024);
    const tunnels = Array.from({ length: 150 }, () => lab.open('10.1.2.3:8080', hop));
    for (const one of tunnels) one.send('x', true);
    await lab.t.until(() => tunnels.every((one) => one.isDone));
    expect(
      tunnels.map((one) => one.failure?.message ?? one.resetCause).filter((one) => one !== null),
    ).toEqual([]);
  });

  test('an application that resets, and one that is not there', async () => {
    using lab = new HboneLab();
    const port = await application((socket) => socket.on('data', () => socket.resetAndDestroy()));
    const hop = await start(lab, port);
    const client = await lab.established('10.1.2.3:8080', hop);
    client.send('x');
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['established', 'reset']);
    for (const server of running.servers.splice(0)) server.close();
    await lab.t.for(50);
    const late = lab.open('10.1.2.3:8080', hop);
    await lab.t.until(() => late.isDone);
    expect(late.events).toEqual(['failed']);
    expect(late.failure).toMatchObject({ flag: 'CONNECT', status: 503 });
  });

  test('a client that it does not expect gets no tunnel', async () => {
    using lab = new HboneLab();
    const hop = await start(lab, await application((socket) => socket.pipe(socket)));
    const other = { ...hop, sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/other' };
    const client = lab.open('10.1.2.3:8080', other);
    client.send('x');
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['failed']);
  });
});
