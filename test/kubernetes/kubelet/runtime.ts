import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../native/package-root.js';
import { expand, imageOf } from './environment.js';
import type { LogFile } from './logs.js';
import type { Sandbox } from './sandbox.js';
import type { Container, Image, KubeletConfig, Pod, SecurityContext } from './types.js';
import { PodError } from './types.js';
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

/** What a container may do by default: containerd's list. */
const DEFAULT_CAPABILITIES = [
  ...['chown', 'dac_override', 'fowner', 'fsetid', 'kill', 'mknod', 'net_bind_service', 'net_raw'],
  ...['setfcap', 'setgid', 'setpcap', 'setuid', 'sys_chroot', 'audit_write'],
];

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

  constructor(
    child: ChildProcess,
    parts: { id: string; cgroup: string; env: Readonly<Record<string, string>> },
  ) {
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
    const into = [
      'nsenter',
      `--target=${this.pid}`,
      '--mount',
      '--uts',
      '--net',
      '--cgroup',
      '--root',
      '--wd',
    ];
    const join_ = [
      'sh',
      '-c',
      'echo $$ > "$1" || exit 1; shift; exec "$@"',
      'lab',
      join(this.cgroup, 'cgroup.procs'),
    ];
    const terminal = tty ? ['script', '-qefc', command.map(quote).join(' '), '/dev/null'] : command;
    return { command: [...join_, ...into, '--', ...terminal], env: this.env };
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

/** Starts the container. Throws a PodError where it cannot be what its spec says. */
export function startContainer(options: RunOptions): RunningContainer {
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
  writeFileSync(script, setupScript(options, folder, security));
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
      ...commandOf(container, image, env),
    ],
    { env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], detached: true },
  );
  log.follow(child.stdout!, 'stdout');
  log.follow(child.stderr!, 'stderr');
  return new RunningContainer(child, { id, cgroup, env });
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

/**
 * The shell that makes the container's view and becomes its command. Its root is the machine's with a layer of its own over it, for
 * there are no images: programs of the machine stand for what an image holds. /run, /tmp, /sys/fs and hosts, resolv.conf are its own.
 */
function setupScript(
  { config, pod, container, sandbox, volumes }: RunOptions,
  folder: string,
  security: SecurityContext,
): string {
  const root = join(folder, 'root');
  const merged = join(root, 'merged');
  const lines = [
    'set -e',
    'echo $$ > "$1"; shift',
    `mount -t tmpfs -o mode=755 lab ${quote(root)}`,
    `cd ${quote(root)}; mkdir upper work merged`,
    'mount -t overlay lab -o lowerdir=/,upperdir=upper,workdir=work merged',
    'for dir in proc dev; do mount --rbind /$dir merged/$dir; done',
    'mount --bind /sys merged/sys',
    `mount --bind ${quote(config.cgroup)} merged/sys/fs/cgroup`,
    'mount -t tmpfs lab merged/run',
    'mount -t tmpfs -o mode=1777 lab merged/tmp',
    ...[packageRoot(), ...(process.env['CULVERT_CACHE'] ?? '').split('\0').filter(Boolean)].map(
      (path) => `mkdir -p merged${quote(path)}; mount --rbind ${quote(path)} merged${quote(path)}`,
    ),
    ...['hosts', 'resolv.conf'].map((name) => bindFile(join(sandbox.folder, name), `/etc/${name}`)),
    ...(container.volumeMounts ?? []).map((mount) => {
      const volume = pod.spec.volumes?.find(({ name }) => name === mount.name);
      if (volume === undefined)
        throw new PodError('CreateContainerConfigError', `there is no volume ${mount.name}`);
      const source = join(volumes.pathOf(volume), mount.subPath ?? '');
      return bindVolume(
        source,
        mount.mountPath,
        mount.readOnly === true || !(volume.emptyDir || volume.hostPath),
      );
    }),
    `hostname ${quote(sandbox.hostname)}`,
    ...(security.readOnlyRootFilesystem ? ['mount -o remount,bind,ro merged'] : []),
    `exec chroot ${quote(merged)} sh -c 'cd "$1"; shift; exec "$@"' lab ${quote(container.workingDir ?? '/')} ${privileges(security)} "$@"`,
  ];
  return `${lines.join('\n')}\n`;
}

function bindFile(source: string, target: string): string {
  // /etc/resolv.conf may be a link into /run, which is empty here.
  return `rm -f merged${target}; touch merged${target}; mount --bind ${quote(source)} merged${target}`;
}

function bindVolume(source: string, target: string, readOnly: boolean): string {
  const [from, to] = [quote(source), `merged${quote(target)}`];
  const make = `if [ -d ${from} ]; then mkdir -p ${to}; else mkdir -p "$(dirname ${to})"; [ -e ${to} ] || touch ${to}; fi`;
  return `${make}; mount --rbind ${from} ${to}${readOnly ? `; mount -o remount,bind,ro ${to}` : ''}`;
}

/** User, group and capabilities by setpriv; a privileged container keeps all. */
function privileges(security: SecurityContext): string {
  const user = security.runAsUser ?? 0;
  const group = security.runAsGroup ?? 0;
  const words = ['setpriv', `--reuid=${user}`, `--regid=${group}`];
  const groups = [
    ...(security.supplementalGroups ?? []),
    ...(security.fsGroup === undefined ? [] : [security.fsGroup]),
  ];
  words.push(groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups');
  if (security.allowPrivilegeEscalation === false) words.push('--no-new-privs');
  if (security.privileged !== true) {
    const { add = [], drop = [] } = security.capabilities ?? {};
    const named = (list: readonly string[]): string[] =>
      list.map((name) => name.toLowerCase().replace(/^cap_/, ''));
    const kept = new Set(
      drop.includes('ALL') ? [] : DEFAULT_CAPABILITIES.filter((name) => !named(drop).includes(name)),
    );
    for (const name of named(add)) kept.add(name);
    const list = add.includes('ALL') ? '+all' : ['-all', ...[...kept].map((name) => `+${name}`)].join(',');
    words.push(`--bounding-set=${list}`, '--inh-caps=-all');
  }
  return words.join(' ');
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
