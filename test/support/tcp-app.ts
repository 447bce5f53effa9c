// TCP application for tests: `node tcp-app.js PORT [HOST]`. The first line that a client sends chooses what happens; half-open is allowed.
//   echo         sends everything back; after the client's FIN sends `over` and its own FIN
//   count        after the client's FIN answers {bytes, sha256} and FIN
//   send N       sends N pattern bytes and FIN
//   peer         answers {peer, local} and FIN
//   reset        resets
//   close        closes both directions at once, whatever the client still sends
//   stall [N]    answers `held` and reads no more; resets after N ms, where it is given
//   hold         answers `held` and stays; prints `hold ended: fin|reset` when the client goes
import { createHash } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { pattern } from './pattern.js';

const [port = '9000', host] = process.argv.slice(2);

const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  let head = '';
  const onHead = (chunk: Buffer) => {
    head += chunk.toString('latin1');
    const newline = head.indexOf('\n');
    if (newline < 0) return;
    socket.off('data', onHead);
    serve(socket, head.slice(0, newline), Buffer.from(head.slice(newline + 1), 'latin1'));
  };
  socket.on('data', onHead);
  socket.on('error', () => {});
});

function serve(socket: Socket, line: string, rest: Buffer): void {
  const [verb, argument = '0'] = line.split(' ');
  switch (verb) {
    case 'echo':
      socket.write(rest);
      socket.pipe(socket, { end: false });
      socket.on('end', () => socket.end('over'));
      return;
    case 'count':
      count(socket, rest);
      return;
    case 'send':
      sendPattern(socket, Number(argument));
      return;
    case 'peer': {
      const { remoteAddress, remotePort, localAddress, localPort } = socket;
      socket.end(
        JSON.stringify({
          peer: { address: remoteAddress, port: remotePort },
          local: { address: localAddress, port: localPort },
        }),
      );
      return;
    }
    case 'reset':
      socket.resetAndDestroy();
      return;
    case 'close':
      socket.destroy();
      return;
    case 'stall':
      socket.write('held');
      socket.pause();
      if (argument !== '0') setTimeout(() => socket.resetAndDestroy(), Number(argument));
      return;
    case 'hold':
      socket.write('held');
      socket.on('end', () => process.stdout.write('hold ended: fin\n'));
      socket.on('error', (error) => process.stdout.write(`hold ended: reset (${error.message})\n`));
      socket.resume();
      return;
    default:
      socket.end(`no such verb: ${verb}`);
  }
}

function count(socket: Socket, rest: Buffer): void {
  const hash = createHash('sha256').update(rest);
  let bytes = rest.length;
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  socket.on('end', () => socket.end(JSON.stringify({ bytes, sha256: hash.digest('hex') })));
}

function sendPattern(socket: Socket, bytes: number): void {
  let at = 0;
  const more = () => {
    while (at < bytes) {
      const chunk = pattern(at, Math.min(65_536, bytes - at));
      at += chunk.length;
      if (!socket.write(chunk)) {
        socket.once('drain', more);
        return;
      }
    }
    socket.end();
  };
  socket.resume();
  more();
}

server.listen({ port: Number(port), host: host ?? '::', backlog: 4096 }, () =>
  process.stdout.write('listening\n'),
);
