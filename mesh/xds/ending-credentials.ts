import type { Socket } from 'node:net';
import type { ChannelCredentials, experimental } from '@grpc/grpc-js';

type SecureConnector = experimental.SecureConnector;

/** What a closed channel may still have to say. */
const LAST_WORDS_MS = 1_000;

/**
 * grpc-js (1.14) goes on after a channel is closed: a connection that has failed is tried once more when its back-off is over, and one whose peer is
 * silent is waited for without end. Nobody would ever close what comes of it. With these credentials a channel's end is that of all its connections.
 */
export function endingWithChannel(credentials: ChannelCredentials): ChannelCredentials {
  const create = credentials._createSecureConnector.bind(credentials);
  credentials._createSecureConnector = (...args) => endingConnector(create(...args));
  return credentials;
}

/** One per connection of a channel; grpc-js destroys it when the channel has no use for that connection any more. */
function endingConnector(inner: SecureConnector): SecureConnector {
  const sockets = new Set<Socket>();
  let isDestroyed = false;
  const refuse = (): void => {
    if (isDestroyed) throw new Error('the channel is closed');
  };
  return {
    waitForReady: async () => {
      refuse();
      await inner.waitForReady();
    },
    connect: async (socket) => {
      refuse(); // grpc-js destroys the socket then
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      return await inner.connect(socket);
    },
    getCallCredentials: () => inner.getCallCredentials(),
    destroy: () => {
      isDestroyed = true;
      inner.destroy();
      setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, LAST_WORDS_MS).unref();
    },
  };
}
