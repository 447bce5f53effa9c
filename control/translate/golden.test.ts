import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { parseAllDocuments, stringify } from 'yaml';
import { formatAddress } from '../../mesh/common/address.js';
import { formatPath, type RawObject } from '../../mesh/manifests/index.js';
import {
  ACCESS_LOG_POLICY_TYPE_URL,
  culvert,
  istio,
  OUTBOUND_POLICY_TYPE_URL,
  SERVICE_DNS_TYPE_URL,
  TRAFFIC_POLICY_TYPE_URL,
  WORKLOAD_DNS_TYPE_URL,
} from '../../mesh/proto/index.js';
import { decodeAddress } from '../../mesh/xds/index.js';
import { decodeObject, type MeshObject, MODEL_DEFAULTS, Model, type ModelChange } from '../model/index.js';
import {
  AddressTranslator,
  limitationsOf,
  type Resource,
  TRANSLATE_DEFAULTS,
  type TranslateOptions,
  translateAuthorizations,
  VipPool,
} from './index.js';

// testdata/<case>.in.yaml: manifests, optionally led by a document `options:`. <case>.out.yaml: the resources. UPDATE_GOLDEN=1 rewrites.
const testdata = join(dirname(fileURLToPath(import.meta.url)), '../../../control/translate/testdata');
const names = (suffix: string) =>
  readdirSync(testdata)
    .filter((file) => file.endsWith(suffix))
    .map((file) => file.slice(0, -suffix.length))
    .sort();

function translate(text: string): string {
  const upserted = new Map<string, MeshObject>();
  const invalid: object[] = [];
  let options: TranslateOptions = TRANSLATE_DEFAULTS;
  for (const document of parseAllDocuments(text)) {
    const value = document.toJS() as RawObject & { options?: Partial<TranslateOptions> };
    if (value.options !== undefined) {
      options = { ...options, ...value.options };
      continue;
    }
    const decoded = decodeObject(value);
    if (decoded.outcome === 'object') upserted.set(decoded.key, decoded.value);
    else if (decoded.outcome === 'invalid' && decoded.inPlace !== undefined) {
      upserted.set(decoded.key, decoded.inPlace);
      const problems = decoded.problems.map(({ path, reason }) => `${formatPath(path)}: ${reason}`);
      invalid.push({ object: decoded.key, problems });
    } else throw new Error(JSON.stringify(decoded));
  }
  const changes: ModelChange[] = [];
  const model = new Model(
    { ...MODEL_DEFAULTS, debounceMs: 0, debounceMaxMs: 0 },
    { onChange: (change) => changes.push(change) },
  );
  model.apply({ upserted, removed: [] });
  model.flush();
  const [change] = changes as [ModelChange];
  const vips = new VipPool();
  const translator = new AddressTranslator(options, { model, vips });
  const addresses = translator.translate(change);
  for (const [name, resource] of addresses) expectReadable(name, resource);
  const authorizations = translateAuthorizations(model, change.policies, options);
  const limitations = [...authorizations.limitations, ...limitationsOf(change, model, vips, options)].flatMap(
    ([object, list]) => list.map((limitation) => ({ object, ...limitation })),
  );
  return stringify(
    [
      ...resourcesOf(addresses, plainAddress),
      ...resourcesOf(authorizations.resources, plainAuthorization),
      ...invalid,
      ...limitations,
    ],
    { aliasDuplicateObjects: false },
  );
}

/** Agents take it as it is. */
function expectReadable(name: string, resource: Resource<istio.workload.Address.$Properties> | null): void {
  const bytes = istio.workload.Address.encode(resource!.message).finish();
  expect(decodeAddress(name, bytes)).not.toMatchObject({ kind: 'rejected' });
}

function resourcesOf<Message>(
  updates: ReadonlyMap<string, Resource<Message> | null>,
  plain: (message: Message) => unknown,
): object[] {
  const sorted = [...updates].sort(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([name, resource]) => ({
    name,
    ...(resource === null ? { absent: true } : { ...resource, message: plain(resource.message) }),
  }));
}

/** What is on the wire, for people: enums by name, addresses as text, defaults left out. */
function plainAddress(message: istio.workload.Address.$Properties): unknown {
  const { Address } = istio.workload;
  const decoded = Address.decode(Address.encode(message).finish());
  return readable(Address.toObject(decoded, { enums: String }));
}

const EXTENSIONS: Readonly<Record<string, { decode(bytes: Uint8Array): object }>> = {
  [TRAFFIC_POLICY_TYPE_URL]: culvert.workload.TrafficPolicy,
  [ACCESS_LOG_POLICY_TYPE_URL]: culvert.workload.AccessLogPolicy,
  [OUTBOUND_POLICY_TYPE_URL]: culvert.workload.OutboundPolicy,
  [SERVICE_DNS_TYPE_URL]: culvert.workload.ServiceDns,
  [WORKLOAD_DNS_TYPE_URL]: culvert.workload.WorkloadDns,
};

function plainAuthorization(message: istio.security.Authorization.$Properties): unknown {
  const { Authorization } = istio.security;
  const decoded = Authorization.decode(Authorization.encode(message).finish());
  return readable(Authorization.toObject(decoded, { enums: String }));
}

function readable(value: unknown): unknown {
  if (typeof value === 'object' && value !== null && 'type_url' in value && 'value' in value) {
    const type = EXTENSIONS[value.type_url as string]!;
    return JSON.parse(JSON.stringify(type.decode(value.value as Uint8Array)));
  }
  if (value instanceof Uint8Array) return formatAddress(value);
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, readable(field)]));
}

describe('manifests become resources', () => {
  test.each(names('.in.yaml'))('%s', (name) => {
    const actual = translate(readFileSync(join(testdata, `${name}.in.yaml`), 'utf8'));
    const file = join(testdata, `${name}.out.yaml`);
    if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(file, actual);
    if (!existsSync(file)) throw new Error(`${file} is missing; UPDATE_GOLDEN=1 writes it`);
    expect(actual).toBe(readFileSync(file, 'utf8'));
  });

  test('no golden file is left over', () => {
    expect(names('.out.yaml')).toEqual(names('.in.yaml'));
  });
});
