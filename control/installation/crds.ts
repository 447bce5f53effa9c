import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../mesh/common/errors.js';
import { statusOf } from '../../mesh/kube/index.js';
import type { CrdManifest } from './bundle.js';
import { tryGet } from './requests.js';
import type { KubeObject, Requests, Say } from './types.js';

/** On every CRD that we have installed; one without it is somebody else's and is never touched. */
export const OWNER_LABEL = 'culvert.io/crd';
/** Of what is installed: an older chart (a rollback) leaves a newer one as it is, since there may be objects that need it. */
export const REVISION_ANNOTATION = 'culvert.io/crd-revision';
/** Raised with every change of a file in crds/. */
export const CRD_REVISION = 2;

const COLLECTION = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
const FIELD_MANAGER = 'culvert';
const CONFLICT = 409;
const BUNDLE_VERSION = 'gateway.networking.k8s.io/bundle-version';
const POLL_MS = 200;

type Outcome = 'installed' | 'updated' | 'unchanged' | 'newer' | "another's";

interface InstalledCrd extends KubeObject {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

export interface InstallOptions {
  readonly revision: number;
  /** For all CRDs to be served, milliseconds. */
  readonly timeoutMs: number;
}

export const INSTALL_DEFAULTS: InstallOptions = { revision: CRD_REVISION, timeoutMs: 60_000 };

/** Server-side-applies CRDs that are absent or ours, and waits until they are served. Throws an Error that names those that are not. */
export async function installCrds(
  crds: readonly CrdManifest[],
  options: InstallOptions,
  deps: { readonly client: Requests; readonly say: Say },
): Promise<void> {
  const failed: string[] = [];
  for (const crd of crds) {
    const { name } = crd.metadata;
    try {
      const { outcome, note } = await installOne(crd, options.revision, deps.client);
      deps.say(`${name}: ${outcome}${note}`);
    } catch (error) {
      failed.push(`${name}: ${messageOf(error)}`);
    }
  }
  if (failed.length === 0) failed.push(...(await unserved(crds, options.timeoutMs, deps.client)));
  if (failed.length > 0) throw new Error(failed.join('\n'));
}

async function installOne(
  crd: CrdManifest,
  revision: number,
  client: Requests,
): Promise<{ readonly outcome: Outcome; readonly note: string }> {
  const { name } = crd.metadata;
  const there = await tryGet<InstalledCrd>(client, `${COLLECTION}/${name}`);
  if (there === null) {
    // Without force: should somebody be faster, it is theirs.
    const made = await apply(crd, revision, false, client);
    return { outcome: made === null ? "another's" : 'installed', note: '' };
  }
  const { labels = {}, annotations = {} } = there.metadata;
  if (labels[OWNER_LABEL] === undefined)
    return { outcome: "another's", note: `, left as it is${versionNote(annotations, crd)}` };
  if (Number(annotations[REVISION_ANNOTATION] ?? 0) > revision)
    return { outcome: 'newer', note: ', left as it is' };
  const after = await apply(crd, revision, true, client);
  // What changes nothing leaves its version.
  const isSame = after?.metadata.resourceVersion === there.metadata.resourceVersion;
  return { outcome: isSame ? 'unchanged' : 'updated', note: '' };
}

/** The object as it is then; null: somebody else has fields of it. */
async function apply(
  crd: CrdManifest,
  revision: number,
  force: boolean,
  client: Requests,
): Promise<InstalledCrd | null> {
  const { metadata } = crd;
  const body = {
    ...crd,
    metadata: {
      ...metadata,
      labels: { ...metadata.labels, [OWNER_LABEL]: 'installed' },
      annotations: { ...metadata.annotations, [REVISION_ANNOTATION]: String(revision) },
    },
  };
  try {
    const answer = await client.request({
      method: 'PATCH',
      path: `${COLLECTION}/${metadata.name}`,
      query: { fieldManager: FIELD_MANAGER, force: String(force) },
      body,
      contentType: 'application/apply-patch+yaml',
    });
    return answer as InstalledCrd;
  } catch (error) {
    if (!force && statusOf(error) === CONFLICT) return null;
    throw error;
  }
}

function versionNote(annotations: Readonly<Record<string, string>>, crd: CrdManifest): string {
  const [theirs, ours] = [annotations[BUNDLE_VERSION], crd.metadata.annotations?.[BUNDLE_VERSION]];
  return ours === undefined || theirs === ours
    ? ''
    : ` (Gateway API ${theirs ?? 'of no version'}; ours is ${ours})`;
}

/** Those that are not served in time, with the reason. */
async function unserved(
  crds: readonly CrdManifest[],
  timeoutMs: number,
  client: Requests,
): Promise<string[]> {
  const untilMs = performance.now() + timeoutMs;
  let waiting: readonly string[] = crds.map(({ metadata }) => metadata.name);
  for (;;) {
    const found = await Promise.all(
      waiting.map(async (name) => ({
        name,
        crd: await tryGet<InstalledCrd>(client, `${COLLECTION}/${name}`),
      })),
    );
    waiting = found.filter(({ crd }) => !isServed(crd)).map(({ name }) => name);
    if (waiting.length === 0) return [];
    if (performance.now() > untilMs)
      return waiting.map((name) => `${name}: not served after ${timeoutMs} ms`);
    await sleep(POLL_MS);
  }
}

function isServed(crd: InstalledCrd | null): boolean {
  const conditions = crd?.status?.conditions ?? [];
  return (
    crd?.metadata.deletionTimestamp === undefined &&
    conditions.some(({ type, status }) => type === 'Established' && status === 'True')
  );
}
