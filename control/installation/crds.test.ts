import { describe, expect, test } from '@jest/globals';
import { type ApiRequest, KubeError } from '../../mesh/kube/index.js';
import { OBJECT_KINDS } from '../model/index.js';
import { type CrdManifest, loadCrds } from './bundle.js';
import { installCrds, OWNER_LABEL, REVISION_ANNOTATION } from './crds.js';

const served = { conditions: [{ type: 'Established', status: 'True' }] };
const crd = (name: string): CrdManifest => ({
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name },
  spec: {},
});

/** The collection of CRDs of an API server. */
function apiServer(there: Record<string, { labels?: object; annotations?: object }>) {
  const objects = new Map<string, object>(
    Object.entries(there).map(([name, metadata]) => [
      name,
      { metadata: { name, resourceVersion: '1', ...metadata }, status: served },
    ]),
  );
  const written: ApiRequest[] = [];
  const request = async (asked: ApiRequest): Promise<unknown> => {
    const name = asked.path.split('/').at(-1)!;
    if (asked.method === 'PATCH') {
      written.push(asked);
      const { metadata } = asked.body as CrdManifest;
      const before = objects.get(name) as CrdManifest | undefined;
      const isSame = JSON.stringify(metadata.annotations) === JSON.stringify(before?.metadata.annotations);
      const resourceVersion = isSame ? '1' : '2';
      objects.set(name, { metadata: { ...metadata, resourceVersion }, status: served });
    }
    const found = objects.get(name);
    if (found === undefined) throw new KubeError('KUBE_REFUSED', 'not found', { status: 404 });
    return found;
  };
  return { client: { request }, written };
}

async function install(there: Parameters<typeof apiServer>[0], names: readonly string[]) {
  const { client, written } = apiServer(there);
  const lines: string[] = [];
  const say = (line: string) => void lines.push(line);
  await installCrds(names.map(crd), { revision: 2, timeoutMs: 0 }, { client, say });
  return { lines, written };
}

describe('installCrds', () => {
  test('makes what is absent, without force, with our label and revision', async () => {
    const { lines, written } = await install({}, ['a.x']);
    expect(lines).toEqual(['a.x: installed']);
    expect(written[0]).toMatchObject({
      contentType: 'application/apply-patch+yaml',
      query: { fieldManager: 'culvert', force: 'false' },
      body: {
        metadata: { labels: { [OWNER_LABEL]: 'installed' }, annotations: { [REVISION_ANNOTATION]: '2' } },
      },
    });
  });

  test('brings ours up to date, and leaves those of others and newer ones alone', async () => {
    const { lines, written } = await install(
      {
        'ours.x': { labels: { [OWNER_LABEL]: 'installed' }, annotations: { [REVISION_ANNOTATION]: '1' } },
        'same.x': { labels: { [OWNER_LABEL]: 'installed' }, annotations: { [REVISION_ANNOTATION]: '2' } },
        'theirs.x': { labels: { 'app.kubernetes.io/managed-by': 'Helm' } },
        'newer.x': { labels: { [OWNER_LABEL]: 'installed' }, annotations: { [REVISION_ANNOTATION]: '3' } },
      },
      ['ours.x', 'same.x', 'theirs.x', 'newer.x'],
    );
    expect(lines).toEqual([
      'ours.x: updated',
      'same.x: unchanged',
      "theirs.x: another's, left as it is",
      'newer.x: newer, left as it is',
    ]);
    expect(written.map(({ path }) => path.split('/').at(-1))).toEqual(['ours.x', 'same.x']);
  });

  test('fails, naming it, where one cannot be written', async () => {
    const request = async ({ method }: ApiRequest): Promise<unknown> => {
      throw new KubeError('KUBE_REFUSED', 'no', { status: method === 'PATCH' ? 403 : 404 });
    };
    const done = installCrds(
      [crd('a.x')],
      { revision: 1, timeoutMs: 0 },
      { client: { request }, say: () => {} },
    );
    await expect(done).rejects.toThrow(/a\.x: .*no/);
  });
});

describe('the CRDs', () => {
  const crds = loadCrds() as readonly (CrdManifest & {
    readonly spec: {
      readonly group: string;
      readonly names: { readonly kind: string };
      readonly versions: readonly {
        readonly name: string;
        readonly storage: boolean;
        readonly subresources?: object;
      }[];
    };
  })[];
  const served = crds.flatMap(({ spec }) =>
    spec.versions.map(({ name }) => `${spec.group}/${name} ${spec.names.kind}`),
  );

  test('are there for every kind and version that the controller reads', () => {
    const custom = OBJECT_KINDS.filter((kind) => kind.includes('istio.io/'));
    expect(custom.filter((kind) => !served.includes(kind))).toEqual([]);
  });

  test('are those of the Gateway API, standard channel, and of Istio only as far as they are read', () => {
    const [gateway, istio] = [/gateway\.networking\.k8s\.io/, /istio\.io/].map((group) =>
      crds.filter(({ spec }) => group.test(spec.group)),
    );
    expect([gateway!.length, istio!.length, crds.length]).toEqual([10, 7, 17]);
    expect(
      istio!.map(({ spec }) => spec.versions.filter(({ storage }) => storage).map(({ name }) => name)),
    ).toEqual(istio!.map(() => ['v1']));
    expect(
      istio!.every(({ spec }) => spec.versions.every(({ subresources }) => 'status' in (subresources ?? {}))),
    ).toBe(true);
  });
});
