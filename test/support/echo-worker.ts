import { runWorker } from '../../mesh/io/index.js';
import { Echo } from './reactor.js';

/** Worker of the engine's tests: echoes on the listeners it is told of, and dies when told to. */
export type EchoCommand =
  | { readonly kind: 'listen'; readonly fd: number }
  | { readonly kind: 'throw' }
  | { readonly kind: 'exit' }
  | { readonly kind: 'spin' }
  | { readonly kind: 'ping' };
export type EchoReport = { readonly kind: 'pong'; readonly connections: number };

runWorker<null, EchoCommand, EchoReport>({
  log: () => ({ warn: () => {}, error: () => {} }),
  setup: ({ reactor, post }) => {
    return (command) => {
      switch (command.kind) {
        case 'listen':
          reactor.listen({ fd: command.fd }, { onAccepted: () => new Echo(reactor) });
          break;
        case 'throw':
          // Guarded callbacks cannot end a worker, so it does so from outside of them.
          Reflect.set(reactor, 'turn', () => {
            throw new Error('told to die');
          });
          break;
        case 'exit':
          process.exit(3);
          break;
        case 'spin':
          for (;;);
        case 'ping':
          post({ kind: 'pong', connections: reactor.size });
      }
    };
  },
});
