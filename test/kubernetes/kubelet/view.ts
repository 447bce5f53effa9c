import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../native/package-root.js';
import { cacheFolder } from '../binaries.js';
import type { RunOptions } from './runtime.js';
import type { SecurityContext } from './types.js';
import { PodError } from './types.js';

/** What a container may do by default: containerd's list. */
const DEFAULT_CAPABILITIES = [
  ...['chown', 'dac_override', 'fowner', 'fsetid', 'kill', 'mknod', 'net_bind_service', 'net_raw'],
  ...['setfcap', 'setgid', 'setpcap', 'setuid', 'sys_chroot', 'audit_write'],
];

export interface ViewOptions {
  /** Of the container's own files. */
  readonly folder: string;
  readonly readOnly: boolean;
  readonly workingDir: string;
}

/**
 * The shell that makes the container's view and becomes its command. Its root is the machine's with a layer of its own over it, for
 * there are no images: programs of the machine stand for what an image holds. /run, /tmp, /sys/fs and hosts, resolv.conf are its own.
 */
export function setupScript(
  { config, pod, container, sandbox, volumes }: RunOptions,
  { folder, readOnly, workingDir }: ViewOptions,
): string {
  const root = join(folder, 'root');
  const lines = [
    'set -e',
    'echo $$ > "$1"; shift',
    `mount -t tmpfs -o mode=755 lab ${quote(root)}`,
    `cd ${quote(root)}; mkdir upper work merged`,
    'mount -t overlay lab -o lowerdir=/,upperdir=upper,workdir=work merged',
    'for dir in proc dev; do mount --rbind /$dir merged/$dir; done',
    // The node's first process, by whose namespaces a program with hostPID knows the host: kubelet stands for it.
    ...(pod.spec.hostPID === true ? [`mount --bind /proc/${process.pid} merged/proc/1`] : []),
    'mount --bind /sys merged/sys',
    `mount --bind ${quote(config.cgroup)} merged/sys/fs/cgroup`,
    'mount -t tmpfs lab merged/run',
    'mount -t tmpfs -o mode=1777 lab merged/tmp',
    ...ownMounts(),
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
    ...(readOnly ? ['mount -o remount,bind,ro merged'] : []),
    `exec chroot merged sh -c 'cd "$1"; shift; exec 3>&-; exec "$@"' lab ${quote(workingDir)} "$@"`,
  ];
  return `${lines.join('\n')}\n`;
}

function bindFile(source: string, target: string): string {
  // /etc/resolv.conf may be a link into /run, which is empty here.
  return `rm -f merged${target}; touch merged${target}; mount --bind ${quote(source)} merged${target}`;
}

function bindVolume(source: string, target: string, readOnly: boolean): string {
  const from = quote(source);
  // Links on the way are those of the container's root, not of the machine's: /var/run is one.
  const find = `to=merged$(chroot merged realpath -m ${quote(target)})`;
  const to = '"$to"';
  const make = `if [ -d ${from} ]; then mkdir -p ${to}; else mkdir -p "$(dirname ${to})"; [ -e ${to} ] || touch ${to}; fi`;
  return `${find}; ${make}; mount --rbind ${from} ${to}${readOnly ? `; mount -o remount,bind,ro ${to}` : ''}`;
}

/** This tree and what tests have built, where they are on a file system of their own or below /tmp: the layer over the root does not show those. */
function ownMounts(): string[] {
  const isHidden = (folder: string): boolean =>
    existsSync(folder) && (statSync(folder).dev !== statSync('/').dev || folder.startsWith('/tmp/'));
  return [packageRoot(), cacheFolder()]
    .filter(isHidden)
    .map(
      (folder) => `mkdir -p merged${quote(folder)}; mount --rbind ${quote(folder)} merged${quote(folder)}`,
    );
}

/** The command before the command: user, group and capabilities by setpriv; a privileged container keeps all. */
export function privileges(security: SecurityContext): readonly string[] {
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
  return words;
}

/** As one word of a shell. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
