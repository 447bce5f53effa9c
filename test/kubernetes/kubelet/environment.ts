import { addressPlan } from '../../lab/network.js';
import type { Container, DownwardItem, Image, ImageTable, Pod } from './types.js';
import { PodError } from './types.js';

/** Data of a ConfigMap or Secret by key; null: there is none. */
export type ReadData = (
  kind: 'configmaps' | 'secrets',
  name: string,
) => Promise<ReadonlyMap<string, Buffer> | null>;

/** What fieldRef may name and the API object does not hold yet. */
export interface PodPlace {
  readonly podIps: readonly string[];
  readonly hostIps: readonly string[];
}

/** The image by its repository, whatever registry and tag. Throws ErrImagePull where the table has none. */
export function imageOf(table: ImageTable, reference: string): Image {
  const repository = reference.replace(/@.*$/, '').replace(/:[^/:]*$/, '');
  const parts = repository.split('/');
  for (let from = 0; from < parts.length; from += 1) {
    const image = table[parts.slice(from).join('/')];
    if (image !== undefined) return image;
  }
  throw new PodError('ErrImagePull', `the lab's table of images has no ${repository}`);
}

/** Environment of a container, in Kubernetes' order: image, envFrom, env, with $(NAME) expanded. */
export async function environmentOf(
  pod: Pod,
  container: Container,
  image: Image,
  place: PodPlace,
  read: ReadData,
): Promise<Record<string, string>> {
  const env: Record<string, string> = {
    PATH: process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    HOSTNAME: pod.spec.hostname ?? pod.metadata.name,
    ...kubernetesService(),
    ...image.env,
  };
  for (const source of container.envFrom ?? []) {
    const [kind, ref] = source.secretRef
      ? (['secrets', source.secretRef] as const)
      : (['configmaps', source.configMapRef!] as const);
    const data = await read(kind, ref.name);
    if (data === null && ref.optional !== true) throw missing(kind, ref.name);
    for (const [key, value] of data ?? []) env[`${source.prefix ?? ''}${key}`] = value.toString('utf8');
  }
  for (const { name, value, valueFrom } of container.env ?? []) {
    if (valueFrom === undefined) {
      env[name] = expand(value ?? '', env);
      continue;
    }
    const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = valueFrom;
    if (fieldRef) env[name] = fieldOf(pod, fieldRef.fieldPath, place);
    else if (resourceFieldRef) env[name] = resourceOf(pod, container, resourceFieldRef);
    else {
      const [kind, ref] = secretKeyRef
        ? (['secrets', secretKeyRef] as const)
        : (['configmaps', configMapKeyRef!] as const);
      const found = (await read(kind, ref.name))?.get(ref.key);
      if (found !== undefined) env[name] = found.toString('utf8');
      else if (ref.optional !== true) throw missing(kind, `${ref.name}, key ${ref.key}`);
    }
  }
  return env;
}

/** `$(NAME)` by its value, `$$` as `$`; what is unknown stays as it is. */
export function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replace(/\$\$|\$\(([^)]+)\)/g, (whole, name: string | undefined) =>
    name === undefined ? '$' : (env[name] ?? whole),
  );
}

/** Text of a fieldRef. Throws for a path that Kubernetes does not have either. */
export function fieldOf(pod: Pod, path: string, place: PodPlace): string {
  const { metadata, spec } = pod;
  const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (keyed) return metadata[keyed[1] as 'labels' | 'annotations']?.[keyed[2]!] ?? '';
  const lines = (map: Readonly<Record<string, string>> = {}): string =>
    Object.entries(map)
      .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
      .join('\n');
  const fields: Readonly<Record<string, () => string>> = {
    'metadata.name': () => metadata.name,
    'metadata.namespace': () => metadata.namespace!,
    'metadata.uid': () => metadata.uid!,
    'metadata.labels': () => lines(metadata.labels),
    'metadata.annotations': () => lines(metadata.annotations),
    'spec.nodeName': () => spec.nodeName ?? '',
    'spec.serviceAccountName': () => spec.serviceAccountName ?? 'default',
    'status.podIP': () => place.podIps[0] ?? '',
    'status.podIPs': () => place.podIps.join(','),
    'status.hostIP': () => place.hostIps[0] ?? '',
    'status.hostIPs': () => place.hostIps.join(','),
  };
  const field = fields[path];
  if (field === undefined) throw new PodError('CreateContainerConfigError', `fieldRef ${path} is not known`);
  return field();
}

/** Value of a resourceFieldRef, divided and rounded up; the node's own where there is no limit. */
export function resourceOf(
  pod: Pod,
  own: Container | null,
  ref: NonNullable<DownwardItem['resourceFieldRef']>,
): string {
  const container = pod.spec.containers.find(({ name }) => name === ref.containerName) ?? own;
  const [which, resource] = ref.resource.split('.') as ['limits' | 'requests', string];
  const amount =
    container?.resources?.[which]?.[resource] ?? (which === 'limits' ? NODE_RESOURCES[resource] : undefined);
  return String(
    Math.ceil(quantity(amount ?? '0') / quantity(ref.divisor && ref.divisor !== '0' ? ref.divisor : '1')),
  );
}

/** What every lab node says it has. */
export const NODE_RESOURCES: Readonly<Record<string, string>> = {
  cpu: '8',
  memory: '16Gi',
  'ephemeral-storage': '32Gi',
  pods: '110',
};

const UNITS: Readonly<Record<string, number>> = {
  ...{ m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 },
};

function quantity(text: string): number {
  const [, number, unit] = /^([0-9.]+)([A-Za-z]*)$/.exec(text) ?? [];
  return Number(number ?? 0) * (unit ? (UNITS[unit] ?? 1) : 1);
}

function kubernetesService(): Record<string, string> {
  const host = addressPlan.vip4(1);
  return {
    KUBERNETES_SERVICE_HOST: host,
    KUBERNETES_SERVICE_PORT: '443',
    KUBERNETES_SERVICE_PORT_HTTPS: '443',
    KUBERNETES_PORT: `tcp://${host}:443`,
  };
}

/** A ConfigMap or Secret that is not there (yet). */
export function missing(kind: 'configmaps' | 'secrets', what: string): PodError {
  return new PodError(
    'CreateContainerConfigError',
    `${kind === 'secrets' ? 'secret' : 'configmap'} ${what} not found`,
  );
}
