import { APP_PORT, type Peer } from '../bed.js';

/** No mesh: the client dials the application. */
export const none: Peer = {
  name: 'none',
  start: async (bed) => ({
    target: { address: bed.server.ip, port: APP_PORT },
    proxies: [],
    stop: async () => undefined,
  }),
};
