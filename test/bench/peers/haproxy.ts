import { APP_PORT, type Bed, type Peer } from '../bed.js';
import { CLIENT_LISTEN, SERVER_PORT, startPair } from './pair.js';

/** HAProxy in TCP mode, one thread, TLS 1.3 between the two with a certificate on both sides. */
export const haproxy: Peer = {
  name: 'haproxy',
  start: (bed) => startPair(bed, 'haproxy', configsOf(bed), (file) => ['haproxy', '-db', '-f', file]),
};

function configsOf(bed: Bed): { client: string; server: string } {
  const { ca, client, server } = bed.certificates;
  const common = `
global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen tunnel`;
  return {
    client: `${common}
  bind ${CLIENT_LISTEN.address}:${CLIENT_LISTEN.port}
  server peer ${bed.server.ip}:${SERVER_PORT} ssl crt ${client.both} ca-file ${ca} verify required verifyhost server
`,
    server: `${common}
  bind ${bed.server.ip}:${SERVER_PORT} ssl crt ${server.both} ca-file ${ca} verify required
  server app 127.0.0.1:${APP_PORT}
`,
  };
}
