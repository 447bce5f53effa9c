import { CliError } from '../errors.js';
import type { Cluster } from './cluster.js';

/** Jobs of the chart (hook-install.yaml, hook-uninstall.yaml): helm removes them when they have succeeded. */
const jobNames = ['culvert-install', 'culvert-uninstall'];

interface JobObject {
  readonly metadata: { readonly name: string };
  readonly status?: { readonly succeeded?: number };
}

interface HookPod {
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> };
  readonly status: {
    readonly containerStatuses?: readonly {
      readonly state?: { readonly waiting?: { readonly reason?: string; readonly message?: string } };
    }[];
  };
}

interface EventObject {
  readonly message?: string;
  readonly involvedObject: { readonly kind?: string; readonly name?: string };
}

interface List<Item> {
  readonly items: readonly Item[];
}

export interface StuckHook {
  readonly job: string;
  /** An image that is not there, a refusal by pod security; '' where its log has it. */
  readonly why: string;
}

/** The chart's hooks that have not done their work, of which helm says only that time was over. None where we may not read Jobs. */
export async function stuckHooks({ kubectl, namespace }: Cluster): Promise<StuckHook[]> {
  try {
    const jobs = await kubectl.json<List<JobObject>>('get', 'jobs', '-n', namespace);
    const stuck = jobs.items.filter(
      ({ metadata, status }) => jobNames.includes(metadata.name) && (status?.succeeded ?? 0) === 0,
    );
    if (stuck.length === 0) return [];
    const [pods, events] = await Promise.all([
      kubectl.json<List<HookPod>>('get', 'pods', '-n', namespace),
      kubectl.json<List<EventObject>>(
        ...['get', 'events', '-n', namespace, '--field-selector', 'type=Warning,involvedObject.kind=Job'],
      ),
    ]);
    return stuck.map(({ metadata: { name } }) => ({
      job: name,
      why: waitingOf(name, pods.items) ?? warningOf(name, events.items) ?? '',
    }));
  } catch (error) {
    if (error instanceof CliError) return [];
    throw error;
  }
}

function waitingOf(job: string, pods: readonly HookPod[]): string | undefined {
  const waiting = pods
    .filter(({ metadata }) => metadata.labels?.['batch.kubernetes.io/job-name'] === job)
    .flatMap(({ status }) => status.containerStatuses ?? [])
    .find(({ state }) => state?.waiting !== undefined)?.state?.waiting;
  if (waiting === undefined) return undefined;
  return [waiting.reason, waiting.message].filter((part) => part !== undefined).join(': ');
}

function warningOf(job: string, events: readonly EventObject[]): string | undefined {
  return events.filter(({ involvedObject }) => involvedObject.name === job).at(-1)?.message;
}
