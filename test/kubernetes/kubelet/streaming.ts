import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex, Readable } from 'node:stream';
import type { RunningContainer } from './runtime.js';
import { SpdySession, type SpdyStream } from './spdy.js';

/** How long the client has to open the streams it announced. */
const OPEN_MS = 30_000;
/** Between the last byte and the end of the connection, so that the client reads it all. */
const LINGER_MS = 2000;

/** Runs a command in the container for `kubectl exec`: protocol v4.channel.k8s.io. */
export async function runExec(
  { running, query }: { readonly running: RunningContainer; readonly query: URLSearchParams },
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const wants = (name: string): boolean => ['1', 'true'].includes(query.get(name) ?? '');
  const tty = wants('tty');
  const names = [
    'error',
    ...['stdin', 'stdout', 'stderr'].filter((name) =>
      wants({ stdin: 'input', stdout: 'output', stderr: 'error' }[name]!),
    ),
  ];
  if (tty) names.push('resize');
  const streams = new Map<string, SpdyStream>();
  let session: SpdySession | null = null;
  const opened = new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the client did not open ${names.join(', ')}`)), OPEN_MS);
    session = new SpdySession(socket, head, (stream) => {
      streams.set(stream.headers.get('streamtype') ?? '', stream);
      if (!names.every((name) => streams.has(name) || (name === 'stderr' && tty))) return;
      clearTimeout(timer);
      resolve();
    });
  });
  const held = session as unknown as SpdySession;
  try {
    await opened;
    const { command, env } = running.enter(query.getAll('command'), tty);
    const child = spawn(command[0]!, command.slice(1), {
      env,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    held.closed.then(
      () => child.kill('SIGKILL'),
      () => undefined,
    );
    connectStreams(child, streams, held);
    const code = await new Promise<number>((resolve) => {
      child.on('error', () => resolve(126));
      child.on('close', (status, signal) => resolve(status ?? (signal === null ? 1 : 137)));
    });
    for (const name of ['stdout', 'stderr']) streams.get(name)?.end();
    streams.get('error')?.end(Buffer.from(JSON.stringify(statusOf(code))));
    const timer = setTimeout(() => held.end(), LINGER_MS);
    await held.closed;
    clearTimeout(timer);
  } catch (thrown) {
    held.end();
    throw thrown;
  }
}

function connectStreams(
  child: ChildProcess,
  streams: ReadonlyMap<string, SpdyStream>,
  session: SpdySession,
): void {
  const stdin = streams.get('stdin');
  child.stdin!.on('error', () => undefined);
  if (stdin === undefined) child.stdin!.end();
  else
    stdin.read(
      (data) => child.stdin!.write(data),
      () => child.stdin!.end(),
    );
  streams.get('resize')?.read(
    () => undefined,
    () => undefined,
  );
  copy(child.stdout!, streams.get('stdout'), session);
  copy(child.stderr!, streams.get('stderr') ?? streams.get('stdout'), session);
}

function copy(from: Readable, to: SpdyStream | undefined, session: SpdySession): void {
  from.on('data', (data: Buffer) => {
    if (to === undefined || to.write(data)) return;
    from.pause();
    session.drained().then(
      () => from.resume(),
      () => undefined,
    );
  });
}

function statusOf(code: number): object {
  const meta = { metadata: {} };
  if (code === 0) return { ...meta, status: 'Success' };
  return {
    ...meta,
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code: exit code ${code}`,
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

/** Connects streams to ports inside the pod for `kubectl port-forward`: protocol portforward.k8s.io. */
export function servePortForward(netns: string, socket: Duplex, head: Buffer): void {
  const errors = new Map<string, SpdyStream>();
  const session = new SpdySession(socket, head, (stream) => {
    const id = stream.headers.get('requestid') ?? '';
    if (stream.headers.get('streamtype') === 'error') {
      errors.set(id, stream);
      return;
    }
    const port = Number(stream.headers.get('port'));
    if (!Number.isInteger(port) || port < 1 || port > 65535) session.reset(stream.id);
    else connectPort(netns, port, stream, errors.get(id), session);
  });
}

/** By a process that is in the pod's namespace: a thread of ours cannot go there. */
function connectPort(
  netns: string,
  port: number,
  stream: SpdyStream,
  error: SpdyStream | undefined,
  session: SpdySession,
): void {
  const program =
    "const s=require('net').connect({host:'localhost',port:+process.argv[1],autoSelectFamily:true});s.on('error',(e)=>{process.stderr.write(e.message);process.exit(1)});process.stdin.pipe(s).pipe(process.stdout)";
  const child = spawn(
    'nsenter',
    [`--net=/run/netns/${netns}`, process.execPath, '-e', program, String(port)],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  let message = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    message += text;
  });
  child.stdin.on('error', () => undefined);
  stream.read(
    (data) => child.stdin.write(data),
    () => child.stdin.end(),
  );
  copy(child.stdout, stream, session);
  session.closed.then(
    () => child.kill('SIGKILL'),
    () => undefined,
  );
  child.on('close', () => {
    if (message === '') error?.end();
    else error?.end(Buffer.from(`error forwarding port ${port}: ${message}`));
    stream.end();
  });
}
