import type { Peer, PeerName } from '../bed.js';
import { culvert } from './culvert.js';
import { envoyHbone, envoyMtls } from './envoy.js';
import { haproxy } from './haproxy.js';
import { nginx } from './nginx.js';
import { none } from './none.js';

/** Every peer by its name. */
export const peers: Readonly<Record<PeerName, Peer>> = {
  none,
  haproxy,
  nginx,
  'envoy-mtls': envoyMtls,
  'envoy-hbone': envoyHbone,
  culvert,
};
