import { spawn } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { cgroupRoot } from '../../native/net/index.js';
import { packageRoot } from '../../native/package-root.js';

// What README.md tells people to type works as it stands there: on a machine of its own as far as it matters (network, processes, mounts,
// cgroups), so that it meets neither this machine's nor another test's.

/** Of a fresh machine: cgroup v2 at its usual place, a bpffs, an empty /run, loopback. */
const MACHINE = `set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
ip link set lo up
cd "$1"
set +e
. ./typed.sh
echo "exit $?"
`;

let folder: string;
let cgroup: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-readme-'));
  for (const name of ['dist', 'cli']) symlinkSync(join(packageRoot(), name), join(folder, name));
  cgroup = join(cgroupRoot(), `culvert-readme-${process.pid}`);
  mkdirSync(cgroup);
});
afterEach(() => {
  removeCgroup(cgroup);
  rmSync(folder, { recursive: true, force: true });
});

/** Deepest first. Their processes are gone, though the kernel may not have noticed yet. */
function removeCgroup(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroup(join(path, entry.name));
  rmdirSync(path);
}

function codeUnder(heading: string): string {
  const text = readFileSync(join(packageRoot(), 'README.md'), 'utf8');
  const section = text.slice(text.indexOf(`\n### ${heading}\n`));
  return /```sh\n(.*?)```/s.exec(section)![1]!;
}

test('a pod by hand', async () => {
  writeFileSync(join(folder, 'typed.sh'), codeUnder('A pod by hand'));
  writeFileSync(join(folder, 'machine.sh'), MACHINE);
  const unshare = [
    'unshare',
    '--net',
    '--mount',
    '--cgroup',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
  ];
  const enter = `echo $$ >${cgroup}/cgroup.procs; exec ${unshare.join(' ')} bash "$0/machine.sh" "$0"`;
  // The first process of a PID namespace takes all others with it.
  const machine = spawn('bash', ['-c', enter, folder], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [machine.stdout, machine.stderr])
    stream.on('data', (chunk) => (said += String(chunk)));
  await new Promise((resolve) => machine.once('exit', resolve));
  expect(said).toMatch(/^200$/m);
  expect(said).toMatch(/^shop +client +captured/m);
  expect(said).toMatch(/^shop +web +captured/m);
  expect(said).toMatch(/ns\/shop\/sa\/client → 10\.244\.1\.2:8080: allowed/);
  expect(said).toMatch(/^exit 0$/m);
  expect(readFileSync(join(folder, 'agent.log'), 'utf8')).toMatch(
    /spiffe:\/\/cluster\.local\/ns\/shop\/sa\/client/,
  );
}, 60_000);
