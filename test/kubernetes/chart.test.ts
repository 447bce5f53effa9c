import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { parse, parseAllDocuments } from 'yaml';
import { agentOptions, checkOptions as checkAgent } from '../../agent/options.js';
import {
  checkInstallationOptions,
  installOptions,
  uninstallOptions,
} from '../../control/installation-options.js';
import { OBJECT_KINDS } from '../../control/model/index.js';
import { checkOptions as checkController, OPTIONS as controllerOptions } from '../../control/options.js';
import { type OptionTable, parseOptions } from '../../mesh/config/index.js';
import { packageRoot } from '../../native/package-root.js';
import { ensureKubernetes } from './binaries.js';

// What helm makes of charts/culvert, without a cluster. testdata/chart/<case>.values.yaml → <case>.out.yaml; UPDATE_GOLDEN=1 rewrites.

const CHART = join(packageRoot(), 'charts/culvert');
const TESTDATA = join(packageRoot(), 'test/kubernetes/testdata/chart');
const NAMESPACE = 'culvert-system';

interface SecurityContext {
  readonly privileged?: boolean;
  readonly readOnlyRootFilesystem?: boolean;
  readonly allowPrivilegeEscalation?: boolean;
  readonly runAsNonRoot?: boolean;
  readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] };
  readonly seccompProfile?: { readonly type: string };
}

interface Container {
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly resources?: { readonly limits?: object; readonly requests?: object };
  readonly securityContext: SecurityContext;
}

interface PodSpec {
  readonly hostNetwork?: boolean;
  readonly hostPID?: boolean;
  readonly enableServiceLinks?: boolean;
  readonly automountServiceAccountToken?: boolean;
  readonly serviceAccountName: string;
  readonly terminationGracePeriodSeconds?: number;
  readonly securityContext?: SecurityContext;
  readonly containers: readonly Container[];
}

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

interface Rendered {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly rules?: readonly Rule[];
  readonly data?: Readonly<Record<string, string>>;
  readonly spec: {
    readonly template?: { readonly spec: PodSpec };
    readonly replicas?: number;
  } & Partial<PodSpec>;
}

let helm: string;

beforeAll(async () => {
  helm = (await ensureKubernetes((line) => void process.stderr.write(`${line}\n`))).helm;
}, 3_600_000);

/** Standard output of helm; rejects with what it said. */
async function run(...args: string[]): Promise<string> {
  return (await promisify(execFile)(helm, args, { maxBuffer: 1 << 26 })).stdout;
}

async function template(...args: string[]): Promise<string> {
  return await run('template', 'culvert', CHART, '-n', NAMESPACE, ...args);
}

async function render(...set: string[]): Promise<readonly Rendered[]> {
  const text = await template(...set.flatMap((value) => ['--set', value]));
  return parseAllDocuments(text)
    .map((document) => document.toJS() as Rendered | null)
    .filter((object) => object !== null);
}

function podOf(objects: readonly Rendered[], name: string): PodSpec {
  const found = objects.find(
    ({ kind, metadata, spec }) => metadata.name === name && (kind === 'Pod' || spec?.template),
  );
  return found!.spec.template?.spec ?? (found!.spec as PodSpec);
}

const EVERYTHING = [
  ...[
    'meshConfig.network=n1',
    'meshConfig.trustDomainAliases={old.example}',
    'agent.keepOlderConnections=true',
  ],
  ...[
    'meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY',
    'agent.podsCgroup=kubepods',
    'crds.install=false',
  ],
  ...[
    'agent.kubeletCgroup=system.slice/kubelet.service',
    'podMonitor.enabled=true',
    'prometheusRule.enabled=true',
  ],
  ...['image.pullSecrets[0].name=s', 'certificates.signer.name=example.com/mesh'],
  ...['certificates.signer.rootsConfigMap=roots', 'cni.enabled=true'],
];

describe('programs', () => {
  const programs: readonly (readonly [
    string,
    string,
    OptionTable,
    ((values: never) => readonly string[]) | null,
  ])[] = [
    ['culvert-agent', 'dist/agent/main.js', agentOptions, checkAgent],
    ['culvert-controller', 'dist/control/main.js', controllerOptions, checkController],
    ['culvert-install', 'dist/control/install.js', installOptions, null],
    ['culvert-uninstall', 'dist/control/uninstall.js', uninstallOptions, null],
    ['culvert-test', 'dist/control/check-installation.js', checkInstallationOptions, null],
  ];

  test.each(programs)('%s is given options that it has', async (name, program, table, validate) => {
    for (const set of [[], EVERYTHING]) {
      const [container] = podOf(await render(...set), name).containers;
      expect(container!.command[0]).toBe('node');
      expect(container!.command.at(-1)).toBe(program);
      expect(existsSync(join(packageRoot(), program))).toBe(true);
      const argv = container!.args.map((arg) => arg.replace(/\$\(\w+\)/g, 'x'));
      parseOptions(table, {
        argv,
        env: {},
        envPrefix: '',
        ...(validate && { validate: validate as () => string[] }),
      });
    }
  });
});

describe('what the mesh may do', () => {
  test('agents: capabilities that are listed, no privileges, nothing written to their root, no limit of memory', async () => {
    const pod = podOf(await render('agent.drainSeconds=45'), 'culvert-agent');
    const [container] = pod.containers;
    expect(container!.securityContext).toMatchObject({
      privileged: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: ['BPF', 'NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE'] },
      seccompProfile: { type: 'RuntimeDefault' },
    });
    expect(pod.hostNetwork).toBe(false);
    expect(pod.terminationGracePeriodSeconds).toBe(55);
    expect(container!.resources).toEqual({ requests: expect.anything() });
  });

  test.each(['culvert-controller', 'culvert-install', 'culvert-uninstall', 'culvert-test'])(
    '%s: not as root, no capabilities, no privileges, a root that cannot be written',
    async (name) => {
      const pod = podOf(await render(), name);
      expect(pod.securityContext).toMatchObject({
        runAsNonRoot: true,
        seccompProfile: { type: 'RuntimeDefault' },
      });
      for (const { securityContext } of pod.containers)
        expect(securityContext).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        });
    },
  );

  test('no variables of Services, which would be read as options', async () => {
    const pods = (await render()).flatMap(({ kind, spec }) =>
      kind === 'Pod' ? [spec as PodSpec] : (spec?.template?.spec ?? []),
    );
    expect(pods.length).toBe(5);
    expect(pods.every(({ enableServiceLinks }) => enableServiceLinks === false)).toBe(true);
  });

  test('Secrets: the controller alone, in the namespace of the release alone', async () => {
    const roles = (await render()).filter(({ kind }) => kind === 'Role' || kind === 'ClusterRole');
    const isRead = ({ resources, verbs }: Rule) =>
      resources.includes('secrets') && verbs.some((verb) => verb !== 'create' && verb !== 'delete');
    const readers = roles.filter(({ rules }) => rules!.some(isRead));
    expect(readers.map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`)).toEqual([
      `Role ${NAMESPACE}/culvert-controller`,
    ]);
  });

  test('no rule is for every verb, every group or every resource', async () => {
    const rules = (await render(...EVERYTHING)).flatMap(({ metadata, rules: own = [] }) =>
      own.map((rule) => ({ ...rule, of: metadata.name })),
    );
    const wide = rules.filter(({ verbs, apiGroups, resources }) =>
      [...verbs, ...apiGroups, ...resources].includes('*'),
    );
    expect(wide).toEqual([]);
  });

  test('what is made by server-side apply may be made under its name only', async () => {
    const rules = (await render(...EVERYTHING)).flatMap(({ metadata, rules: own = [] }) =>
      own.map((rule) => ({ ...rule, of: metadata.name })),
    );
    const made = rules.filter(({ verbs }) => verbs.includes('create') && verbs.includes('patch'));
    const unnamed = made.filter(({ resourceNames }) => resourceNames === undefined);
    expect(unnamed.map(({ of, resources }) => `${of} ${resources.join(' ')}`)).toEqual([
      'culvert-controller events',
    ]);
  });

  test('the controller may read the kinds that it reads', async () => {
    const rules = (await render()).find(
      ({ kind, metadata }) => kind === 'ClusterRole' && metadata.name === 'culvert-controller',
    )!.rules!;
    const isReadable = (group: string, resource: string) =>
      rules.some(
        ({ apiGroups, resources, resourceNames, verbs }) =>
          apiGroups.includes(group) &&
          resources.includes(resource) &&
          resourceNames === undefined &&
          verbs.includes('list') &&
          verbs.includes('watch'),
      );
    const unreadable = OBJECT_KINDS.filter((text) => {
      const [apiVersion = '', kind = ''] = text.split(' ');
      const plural = `${kind.toLowerCase()}s`.replace(/ys$/, 'ies');
      return !isReadable(apiVersion.includes('/') ? apiVersion.split('/')[0]! : '', plural);
    });
    expect(unreadable).toEqual([]);
  });

  test('every account of a binding is one of the chart', async () => {
    const objects = await render();
    const accounts = objects
      .filter(({ kind }) => kind === 'ServiceAccount')
      .map(({ metadata }) => metadata.name);
    const bound = objects
      .filter(({ kind }) => kind.endsWith('RoleBinding'))
      .flatMap(
        (object) => (object as unknown as { subjects: { name: string; namespace: string }[] }).subjects,
      );
    expect(
      bound.filter(({ name, namespace }) => !accounts.includes(name) || namespace !== NAMESPACE),
    ).toEqual([]);
  });
});

describe('what the release holds', () => {
  test('no CRD and no Secret: helm would delete them with it, and the CA with them', async () => {
    const kinds = (await render(...EVERYTHING)).map(({ kind }) => kind);
    expect(kinds).not.toContain('CustomResourceDefinition');
    expect(kinds).not.toContain('Secret');
    expect(existsSync(join(CHART, 'crds'))).toBe(false);
  });

  test('all of it bears the labels of the mesh, and is in the namespace of the release', async () => {
    const objects = await render(...EVERYTHING);
    const bare = objects.filter(
      ({ metadata }) => metadata.labels?.['app.kubernetes.io/part-of'] !== 'culvert',
    );
    expect(bare.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([]);
    expect(objects.filter(({ metadata }) => ![undefined, NAMESPACE].includes(metadata.namespace))).toEqual(
      [],
    );
  });

  test('one replica has no disruption budget, which would hold up every drain', async () => {
    const kindsWith = async (set: string) => (await render(set)).map(({ kind }) => kind);
    expect(await kindsWith('controller.replicas=1')).not.toContain('PodDisruptionBudget');
    expect(await kindsWith('controller.replicas=3')).toContain('PodDisruptionBudget');
  });
});

describe('values', () => {
  test.each([
    ['agent.wrokers=2', /wrokers/],
    ['agent.workers=many', /workers/],
    ['meshConfig.trustDomain=Has Space', /trustDomain/],
    ['meshConfig.outboundTrafficPolicy.mode=allow', /mode/],
    ['certificates.lifetime=1 day', /lifetime/],
    ['image.digest=latest', /digest/],
    ['agent.hostPaths.run=relative', /run/],
    ['controller.replicas=0', /replicas/],
  ])('%s is refused', async (value, what) => {
    await expect(render(value)).rejects.toThrow(what);
  });

  test('are all in the schema, each with its type, and the schema knows no others', () => {
    const schema = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8')) as Schema;
    const values = parseAllDocuments(readFileSync(join(CHART, 'values.yaml'), 'utf8'))[0]!.toJS() as object;
    expect(differences(schema, values, '')).toEqual([]);
  });

  test('the chart passes lint, strictly', async () => {
    expect(await run('lint', '--strict', CHART)).toMatch(/0 chart\(s\) failed/);
  });
});

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
}

/** Paths that only one of the two has; where the schema leaves a value open, nothing below it counts. */
function differences(schema: Schema, values: object, path: string): string[] {
  if (schema.properties === undefined) return [];
  const names = new Set([...Object.keys(schema.properties), ...Object.keys(values)]);
  names.delete('global'); // helm's own
  return [...names].flatMap((name) => {
    const [inner, value] = [schema.properties![name], (values as Readonly<Record<string, unknown>>)[name]];
    if (inner === undefined || value === undefined) return [`${path}.${name}`];
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? differences(inner, value, `${path}.${name}`)
      : [];
  });
}

describe('rendered manifests', () => {
  const cases = readdirSync(TESTDATA).filter((name) => name.endsWith('.values.yaml'));
  test.each(cases)('%s', async (file) => {
    const golden = join(TESTDATA, `${basename(file, '.values.yaml')}.out.yaml`);
    const text = await template('-f', join(TESTDATA, file));
    if (process.env['UPDATE_GOLDEN'] === '1') {
      mkdirSync(TESTDATA, { recursive: true });
      writeFileSync(golden, text);
    }
    expect(text).toBe(readFileSync(golden, 'utf8'));
  });
  test('alerts and dashboard are the files of the chart, as they are', async () => {
    const objects = await render('prometheusRule.enabled=true', 'grafanaDashboard.enabled=true');
    const text = (name: string) => readFileSync(join(CHART, name), 'utf8');
    const rules = objects.find(({ kind }) => kind === 'PrometheusRule');
    expect(rules?.spec).toEqual(parse(text('rules/culvert.yaml')));
    const dashboard = objects.find(({ metadata }) => metadata.name === 'culvert-dashboard');
    expect(dashboard?.data?.['culvert.json']).toBe(text('dashboards/culvert.json'));
  });
});
