import { closeSync, openSync } from 'node:fs';
import net from 'node:net';
import { messageOf } from '../../mesh/common/errors.js';
import { EpollReactor } from '../../mesh/io/index.js';
import { NativeEngines } from '../../native/index.js';
import { Recorder } from './reactor.js';

// A program (run it with a low limit) that has no descriptor left and tries what needs one; then gives them back and tries again. Prints what came of it.

const reactor = new EpollReactor({}, { log: { warn: () => {}, error: () => {} } });
const server = net.createServer((socket) => socket.on('error', () => {}));
server.listen(0, '127.0.0.1', () => {
  const ownNetns = openSync('/proc/self/ns/net', 'r');
  const fillers = [...descriptors()];
  const without = [dial(), dial(ownNetns), newEngine()];
  for (const fd of fillers) closeSync(fd);
  const withThem = [dial(), dial(ownNetns), newEngine()];
  process.stdout.write(`${JSON.stringify({ without, withThem })}\n`);
  process.exit(0);
});

function* descriptors(): Generator<number> {
  try {
    for (;;) yield openSync('/dev/null', 'r');
  } catch {
    // EMFILE
  }
}

function dial(netnsFd?: number): string {
  const recorder = new Recorder(reactor);
  const to = { address: '127.0.0.1', port: (server.address() as net.AddressInfo).port };
  reactor.connect({ to, connectTimeoutMs: 5000, ...(netnsFd === undefined ? {} : { netnsFd }) }, recorder);
  for (let i = 0; i < 100 && recorder.events.length === 0; i++) reactor.turn(10);
  const { error } = recorder;
  return error === null ? recorder.events.join() : `${error.code} ${error.message.split(': ').at(-1)}`;
}

function newEngine(): string {
  const engines = new NativeEngines();
  try {
    engines.destroy(engines.create(100));
    return 'made';
  } catch (error) {
    return messageOf(error);
  }
}
