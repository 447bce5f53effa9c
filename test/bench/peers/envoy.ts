import { ensureEnvoy } from '../../support/envoy.js';
import { APP_PORT, type Bed, type Peer } from '../bed.js';
import type { KeyPair } from '../certificates.js';
import { CLIENT_LISTEN, SERVER_PORT, startPair } from './pair.js';

/** Envoy, one worker, TCP over TLS 1.3 with a certificate on both sides. */
export const envoyMtls: Peer = {
  name: 'envoy-mtls',
  start: (bed) => startEnvoys(bed, 'envoy-mtls', { client: mtlsClient(bed), server: mtlsServer(bed) }),
};

/** Envoy, one worker, HBONE: every connection is a CONNECT stream of a shared mTLS HTTP/2 connection. */
export const envoyHbone: Peer = {
  name: 'envoy-hbone',
  start: (bed) => startEnvoys(bed, 'envoy-hbone', { client: hboneClient(bed), server: hboneServer(bed) }),
};

type Json = Readonly<Record<string, unknown>>;

async function startEnvoys(bed: Bed, name: string, configs: { client: Json; server: Json }) {
  const binary = ensureEnvoy();
  const texts = { client: JSON.stringify(configs.client), server: JSON.stringify(configs.server) };
  const flags = ['--concurrency', '1', '--disable-hot-restart', '--log-level', 'error'];
  return await startPair(bed, name, texts, (file) => [binary, ...flags, '-c', file], 'json');
}

function mtlsClient(bed: Bed): Json {
  const peer = cluster('peer', bed.server.ip, SERVER_PORT, { transport_socket: upstreamTls(bed, []) });
  return bootstrap(listener(CLIENT_LISTEN.address, CLIENT_LISTEN.port, [tcpProxy('peer')]), peer);
}

function mtlsServer(bed: Bed): Json {
  const tls = { transport_socket: downstreamTls(bed, []) };
  const listen = listener(bed.server.ip, SERVER_PORT, [tcpProxy('app')], tls);
  return bootstrap(listen, cluster('app', '127.0.0.1', APP_PORT));
}

function hboneClient(bed: Bed): Json {
  const peer = cluster('peer', bed.server.ip, SERVER_PORT, {
    transport_socket: upstreamTls(bed, ['h2']),
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicit_http_config: { http2_protocol_options: { allow_connect: true } },
      },
    },
  });
  const tunnel = { tunneling_config: { hostname: `${bed.server.ip}:${APP_PORT}` } };
  return bootstrap(listener(CLIENT_LISTEN.address, CLIENT_LISTEN.port, [tcpProxy('peer', tunnel)]), peer);
}

function hboneServer(bed: Bed): Json {
  const connect = { upgrade_type: 'CONNECT', connect_config: {} };
  const manager = filter(
    'envoy.filters.network.http_connection_manager',
    'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    {
      stat_prefix: 'hbone',
      codec_type: 'HTTP2',
      http2_protocol_options: { allow_connect: true },
      upgrade_configs: [{ upgrade_type: 'CONNECT' }],
      stream_idle_timeout: '0s',
      route_config: {
        virtual_hosts: [
          {
            name: 'all',
            domains: ['*'],
            routes: [
              {
                match: { connect_matcher: {} },
                route: { cluster: 'app', timeout: '0s', upgrade_configs: [connect] },
              },
            ],
          },
        ],
      },
      http_filters: [
        filter('envoy.filters.http.router', 'envoy.extensions.filters.http.router.v3.Router', {}),
      ],
    },
  );
  const tls = { transport_socket: downstreamTls(bed, ['h2']) };
  const listen = listener(bed.server.ip, SERVER_PORT, [manager], tls);
  return bootstrap(listen, cluster('app', '127.0.0.1', APP_PORT));
}

function bootstrap(listen: Json, upstream: Json): Json {
  return { static_resources: { listeners: [listen], clusters: [upstream] } };
}

function listener(address: string, port: number, filters: readonly Json[], chain: Json = {}): Json {
  const where = { socket_address: { address, port_value: port } };
  return { name: 'listener', address: where, filter_chains: [{ filters, ...chain }] };
}

function cluster(name: string, address: string, port: number, more: Json = {}): Json {
  const where = { socket_address: { address, port_value: port } };
  const most = 100_000;
  const limits = { max_connections: most, max_pending_requests: most, max_requests: most };
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    circuit_breakers: { thresholds: [limits] },
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: where } }] }],
    },
    ...more,
  };
}

function tcpProxy(upstream: string, more: Json = {}): Json {
  const type = 'envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy';
  const body = { stat_prefix: 'tcp', cluster: upstream, idle_timeout: '0s', ...more };
  return filter('envoy.filters.network.tcp_proxy', type, body);
}

function filter(name: string, type: string, body: Json): Json {
  return { name, typed_config: { '@type': `type.googleapis.com/${type}`, ...body } };
}

function upstreamTls(bed: Bed, alpn: readonly string[]): Json {
  const type = 'envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext';
  const common = commonTls(bed, bed.certificates.client, alpn, 'server');
  return filter('envoy.transport_sockets.tls', type, { common_tls_context: common });
}

function downstreamTls(bed: Bed, alpn: readonly string[]): Json {
  const type = 'envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext';
  const common = commonTls(bed, bed.certificates.server, alpn, 'client');
  return filter('envoy.transport_sockets.tls', type, {
    require_client_certificate: true,
    common_tls_context: common,
  });
}

function commonTls(bed: Bed, own: KeyPair, alpn: readonly string[], peer: string): Json {
  return {
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    alpn_protocols: alpn,
    tls_certificates: [
      { certificate_chain: { filename: own.certificate }, private_key: { filename: own.key } },
    ],
    validation_context: {
      trusted_ca: { filename: bed.certificates.ca },
      match_typed_subject_alt_names: [{ san_type: 'DNS', matcher: { exact: peer } }],
    },
  };
}
