import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import type { Lab } from './lab.js';
import { type Manifest, readManifests } from './manifests.js';
import type { LabPod } from './pod.js';
import type { LabProcess } from './process.js';

/** The parts of a Pod manifest that scheduler and kubelet would look at. */
interface PodSpec {
  readonly nodeName: string;
  readonly serviceAccountName: string;
  readonly containers: readonly { readonly name: string; readonly command: readonly string[] }[];
}

interface ServiceSpec {
  readonly clusterIPs: readonly string[];
  readonly ports: readonly { readonly port: number }[];
}

/** The shop of examples/ in a lab: its manifests applied, its pods running. */
export class Shop {
  readonly pods: ReadonlyMap<string, LabPod>;
  readonly processes: readonly LabProcess[];
  /** What kubelet puts into every container of the shop's namespace: `CATALOG_SERVICE_HOST`, … */
  readonly environment: Readonly<Record<string, string>>;

  private constructor(
    pods: ReadonlyMap<string, LabPod>,
    processes: readonly LabProcess[],
    environment: Readonly<Record<string, string>>,
  ) {
    this.pods = pods;
    this.processes = processes;
    this.environment = environment;
  }

  /** Plays API server, scheduler and kubelet for examples/shop/manifests. The lab must have the nodes they name. */
  static async open(lab: Lab): Promise<Shop> {
    const folder = join(packageRoot(), 'examples/shop/manifests');
    const manifests = readdirSync(folder).flatMap((file) =>
      readManifests(readFileSync(join(folder, file), 'utf8')),
    );
    const environment = serviceVariables(manifests);
    for (const manifest of manifests) if (manifest.kind !== 'Pod') lab.manifests.apply(manifest);
    const pods = new Map<string, LabPod>();
    const processes: LabProcess[] = [];
    for (const manifest of manifests.filter(({ kind }) => kind === 'Pod')) {
      const pod = await runPod(lab, manifest, environment);
      pods.set(pod.pod.name, pod.pod);
      processes.push(...pod.processes);
    }
    return new Shop(pods, processes, environment);
  }

  pod(name: string): LabPod {
    const pod = this.pods.get(name);
    if (pod === undefined) throw new Error(`the shop has no pod ${name}`);
    return pod;
  }

  /** URL of a service by its VIP. */
  url(service: string, path: string): string {
    return `http://${this.environment[`${service.toUpperCase()}_SERVICE_HOST`]}${path}`;
  }
}

async function runPod(
  lab: Lab,
  manifest: Manifest,
  environment: Readonly<Record<string, string>>,
): Promise<{ pod: LabPod; processes: LabProcess[] }> {
  const spec = manifest['spec'] as PodSpec;
  const { name, namespace = 'default' } = manifest.metadata;
  const node = lab.nodes.find((candidate) => candidate.name === spec.nodeName);
  if (node === undefined)
    throw new Error(`pod ${namespace}/${name} wants node ${spec.nodeName}, which the lab lacks`);
  const pod = await node.pod(name, {
    namespace,
    serviceAccount: spec.serviceAccountName,
    labels: (manifest.metadata['labels'] ?? {}) as Record<string, string>,
    containers: spec.containers,
  });
  const processes: LabProcess[] = [];
  for (const { command } of spec.containers) {
    const resolved = command.map((word, index) => (index === 0 && word === 'node' ? process.execPath : word));
    const started = pod.spawn(resolved, { env: environment, cwd: packageRoot() });
    if (command[0] === 'node') await started.waitForOutput(/listening/);
    processes.push(started);
  }
  return { pod, processes };
}

function serviceVariables(manifests: readonly Manifest[]): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const { kind, metadata, spec } of manifests) {
    if (kind !== 'Service') continue;
    const { clusterIPs, ports } = spec as ServiceSpec;
    const prefix = metadata.name.toUpperCase().replaceAll('-', '_');
    variables[`${prefix}_SERVICE_HOST`] = clusterIPs[0]!;
    variables[`${prefix}_SERVICE_PORT`] = String(ports[0]!.port);
  }
  return variables;
}
