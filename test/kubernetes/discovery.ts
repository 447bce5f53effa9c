import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, findGo, publish, run, sources, VERSIONS } from './binaries.js';

/** Its discovery package does not ask for a newer client-go than Kubernetes' own modules, which Go has compiled already. */
const PROMETHEUS = '0.311.3';

/**
 * Path of a program that serves what Prometheus' own Kubernetes service discovery finds (binaries/discovery.go): Debian builds Prometheus without it, so
 * its Prometheus asks this one by HTTP. Built at first use, some 2 minutes of two cores after Kubernetes.
 */
export async function ensureDiscovery(onProgress: (line: string) => void = () => undefined): Promise<string> {
  const cache = cacheFolder();
  const target = join(cache, `prometheus-discovery-${PROMETHEUS}`);
  const program = join(target, 'discovery');
  if (existsSync(program)) return program;
  mkdirSync(cache, { recursive: true });
  const scratch = mkdtempSync(join(cache, 'build-'));
  try {
    const go = findGo(cache, onProgress);
    const version = VERSIONS.kubernetes.replace(/^1\./, '0.');
    const modules = ['api', 'apimachinery', 'client-go'].map((name) => `\tk8s.io/${name} v${version}`);
    writeFileSync(
      join(scratch, 'go.mod'),
      `module culvert.test/discovery\n\ngo 1.26.0\n\nrequire (\n\tgithub.com/prometheus/prometheus v${PROMETHEUS}\n${modules.join('\n')}\n)\n`,
    );
    copyFileSync(join(sources, 'discovery.go'), join(scratch, 'main.go'));
    onProgress(`building Prometheus' service discovery ${PROMETHEUS} (some 2 minutes, only once)`);
    const build = [go, 'build', '-trimpath', '-ldflags', '-s -w', '-o', 'program/discovery', '.'];
    await run('flock', [join(cache, 'build.lock'), 'nice', '-n', '10', ...build], scratch);
    publish(join(scratch, 'program'), target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return program;
}
