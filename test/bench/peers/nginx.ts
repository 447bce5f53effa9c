import { APP_PORT, type Bed, type Peer } from '../bed.js';
import { CLIENT_LISTEN, SERVER_PORT, startPair } from './pair.js';

/** nginx's stream module, one worker, TLS 1.3 between the two with a certificate on both sides. */
export const nginx: Peer = {
  name: 'nginx',
  start: (bed) => startPair(bed, 'nginx', configsOf(bed), (file) => ['nginx', '-e', 'stderr', '-c', file]),
};

function configsOf(bed: Bed): { client: string; server: string } {
  const { ca, client, server } = bed.certificates;
  const config = (side: string, body: string): string => `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user root;
daemon off;
pid ${bed.folder}/nginx-${side}.pid;
worker_processes 1;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
stream {
  server {
    proxy_timeout 1h;
${body}
  }
}
`;
  return {
    client: config(
      'client',
      `    listen ${CLIENT_LISTEN.address}:${CLIENT_LISTEN.port};
    proxy_pass ${bed.server.ip}:${SERVER_PORT};
    proxy_ssl on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_certificate ${client.certificate};
    proxy_ssl_certificate_key ${client.key};
    proxy_ssl_trusted_certificate ${ca};
    proxy_ssl_verify on;
    proxy_ssl_name server;`,
    ),
    server: config(
      'server',
      `    listen ${bed.server.ip}:${SERVER_PORT} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate ${server.certificate};
    ssl_certificate_key ${server.key};
    ssl_client_certificate ${ca};
    ssl_verify_client on;
    proxy_pass 127.0.0.1:${APP_PORT};`,
    ),
  };
}
