import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { expand, imageOf } from './environment.js';
import type { LogFile } from './logs.js';
import type { Sandbox } from './sandbox.js';
import type { Container, Image, KubeletConfig, Pod } from './types.js';
import { PodError } from './types.js';
import { privileges, quote, setupScript } from './view.js';
import type { PodVolumes } from './volumes.js';

export interface RunOptions {
  readonly config: KubeletConfig;
  readonly pod: Pod;
  readonly container: Container;
  readonly sandbox: Sandbox;
  readonly volumes: PodVolumes;
  readonly env: Readonly<Record<string, string>>;
  readonly log: LogFile;
}

/** Where Debian's `faketime` has its library, by machine. */
const FAKETIME = '/usr/$LIB/faketime/libfaketime.so.1';

/** A running container: one process tree in its own cgroup and mount namespace. Its pid is that of the command itself. */
export class RunningContainer {
  readonly id: string;
  readonly cgroup: string;
  readonly env: Readonly<Record<string, string>>;
  readonly startedAt: string;
  readonly ended: Promise<{ readonly code: number; readonly signal: number }>;
  #child: ChildProcess;
  #privileges: readonly string[];

  constructor(
    child: ChildProcess,
    parts: {
      readonly id: string;
      readonly cgroup: string;
      readonly env: Readonly<Record<string, string>>;
      readonly privileges: readonly string[];
    },
  ) {
    this.#privileges = parts.privileges;
    this.id = parts.id;
    this.cgroup = parts.cgroup;
    this.env = parts.env;
    this.startedAt = new Date().toISOString();
    this.#child = child;
    this.ended = new Promise((resolve) => {
      child.on('exit', (code, signal) => {
        const number = signal === null ? 0 : (SIGNALS[signal] ?? 0);
        resolve({ code: code ?? 128 + number, signal: number });
      });
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** A command line that runs inside it: its cgroup and namespaces, its files and its environment. */
  enter(
    command: readonly string[],
    tty = false,
  ): { readonly command: readonly string[]; readonly env: NodeJS.ProcessEnv } {
    const namespaces = ['--mount', '--uts', '--net', '--cgroup', '--root', '--wd'];
    const into = ['nsenter', `--target=${this.pid}`, ...namespaces, '--', ...this.#privileges];
    const procs = join(this.cgroup, 'cgroup.procs');
    const move = ['sh', '-c', 'echo $$ > "$1" || exit 1; shift; exec "$@"', 'lab', procs];
    const terminal = tty ? ['script', '-qefc', command.map(quote).join(' '), '/dev/null'] : command;
    return { command: [...move, ...into, ...terminal], env: this.env };
  }
}

const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
};

/** Starts the container; resolves as soon as it is its command. Throws a PodError where it cannot be what its spec says. */
export async function startContainer(options: RunOptions): Promise<RunningContainer> {
  const { config, pod, container, sandbox, log } = options;
  const image = imageOf(config.images, container.image);
  const security = { ...pod.spec.securityContext, ...container.securityContext };
  if (security.runAsNonRoot === true && (security.runAsUser ?? 0) === 0) {
    throw new PodError(
      'CreateContainerConfigError',
      `container ${container.name} has runAsNonRoot and image runs as root`,
    );
  }
  const { id, cgroup } = sandbox.container();
  const folder = join(sandbox.folder, 'containers', id.slice(0, 12));
  mkdirSync(join(folder, 'root'), { recursive: true });
  const script = join(folder, 'setup.sh');
  const limits = privileges(security);
  const workingDir = container.workingDir ?? image.workingDir ?? '/';
  const readOnly = security.readOnlyRootFilesystem === true;
  writeFileSync(script, setupScript(options, { folder, readOnly, workingDir }));
  const skew = config.clockSkewSeconds;
  const env =
    skew === 0
      ? options.env
      : { ...options.env, LD_PRELOAD: FAKETIME, FAKETIME: `${skew > 0 ? '+' : ''}${skew}s` };
  // First the node's cgroup: so the new cgroup namespace shows the node as a machine of its own.
  const enter = 'echo $$ > "$1/cgroup.procs" || exit 1; shift; exec "$@"';
  const namespaces = ['--mount', '--uts', '--cgroup', '--propagation', 'slave'];
  const child = spawn(
    'sh',
    [
      ...['-c', enter, 'lab', config.cgroup, 'nsenter', `--net=/run/netns/${sandbox.netns}`, '--'],
      ...['unshare', ...namespaces, 'sh', script, join(cgroup, 'cgroup.procs')],
      ...limits,
      ...commandOf(container, image, env),
    ],
    { env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe', 'pipe'], detached: true },
  );
  log.follow(child.stdout!, 'stdout');
  log.follow(child.stderr!, 'stderr');
  const running = new RunningContainer(child, { id, cgroup, env, privileges: limits });
  // The script closes this pipe where it becomes the command: nobody may enter before.
  child.stdio[3]!.on('error', () => undefined);
  (child.stdio[3] as Readable).resume();
  await Promise.race([once(child.stdio[3]!, 'end'), running.ended]);
  return running;
}

function commandOf(
  container: Container,
  image: Image,
  env: Readonly<Record<string, string>>,
): readonly string[] {
  const own = container.command ?? image.entrypoint;
  const args = container.args ?? (container.command === undefined ? (image.args ?? []) : []);
  return [...own, ...args].map((word) => expand(word, env));
}
