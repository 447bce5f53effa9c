import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';

/** A bpffs of the node's own at the folder, as systemd mounts one on every machine. */
export function mountBpffs(folder: string): void {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  if (mounts.some((line) => line.split(' ')[4] === folder)) return;
  mkdirSync(folder, { recursive: true });
  execFileSync('mount', ['-t', 'bpf', 'bpf', folder]);
}
