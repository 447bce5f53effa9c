// A door into a lab's namespace: takes a listening socket of the machine's own namespace from its parent, and forwards what is accepted to
// `node gate.js HOST PORT` as seen from here. Ends with its parent.
import { connect, type Server, type Socket } from 'node:net';

const [host, port] = [process.argv[2]!, Number(process.argv[3])];

process.on('message', (_message, handle) => {
  (handle as Server).on('connection', forward);
  process.send!('open');
});
process.on('disconnect', () => process.exit(0));

function forward(client: Socket): void {
  const server = connect({ host, port, noDelay: true });
  client.setNoDelay(true);
  for (const [from, to] of [
    [client, server],
    [server, client],
  ] as const) {
    from.on('error', () => to.destroy());
    from.on('close', () => to.destroy());
    from.pipe(to);
  }
}
