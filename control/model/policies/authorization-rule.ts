import { formatAddress, tryParseAddress } from '../../../mesh/common/address.js';
import { type Fields, formatPath } from '../../../mesh/manifests/index.js';
import type { AttributeMatch, AuthorizationRule, BeyondL4, L4Attribute } from './types.js';

/** Fields of one object of a rule, by their positive names; each has a negative one (`notPorts`). */
interface Vocabulary {
  readonly l4: Readonly<Record<string, L4Attribute>>;
  /** Only a waypoint can tell. */
  readonly l7: readonly string[];
}

const SOURCE: Vocabulary = {
  l4: {
    principals: 'principal',
    namespaces: 'namespace',
    serviceAccounts: 'serviceAccount',
    trustDomains: 'trustDomain',
    ipBlocks: 'sourceIp',
  },
  l7: ['requestPrincipals', 'remoteIpBlocks'],
};

const OPERATION: Vocabulary = { l4: { ports: 'destinationPort' }, l7: ['hosts', 'methods', 'paths'] };

const CONDITIONS: Readonly<Record<string, L4Attribute>> = {
  'source.principal': 'principal',
  'source.namespace': 'namespace',
  'source.serviceAccount': 'serviceAccount',
  'source.trustDomain': 'trustDomain',
  'source.ip': 'sourceIp',
  'destination.ip': 'destinationIp',
  'destination.port': 'destinationPort',
};

const L7_CONDITION =
  /^(request\.headers\[[^\]]+\]|request\.auth\.(principal|audiences|presenter|claims(\[[^\]]+\])+)|remote\.ip|connection\.sni|experimental\.envoy\.filters\..+)$/;

const L7_ONLY = 'is L7 only';

/** Reads `spec.rules[i]`. Problems go to the fields, and are `beyond` as well. `namespace`: the policy's. */
export function readRule(fields: Fields, namespace: string): AuthorizationRule {
  const before = fields.problems.length;
  const beyond: BeyondL4[] = [];
  fields.only(['from', 'to', 'when']);
  const clauses: AttributeMatch[][][] = [];
  const read = (list: string, item: string, words: Vocabulary) => {
    if (!fields.has(list)) return;
    clauses.push(
      itemsOf(fields, list).map((entry) => {
        const said = entry.only([item]).object(item);
        if (said.keys.length === 0) entry.wrong(item, `says nothing; without '${list}' the rule means any`);
        return readMatch(said, words, namespace, beyond);
      }),
    );
  };
  read('from', 'source', SOURCE);
  read('to', 'operation', OPERATION);
  if (fields.has('when'))
    for (const condition of itemsOf(fields, 'when'))
      clauses.push([readCondition(condition, namespace, beyond)]);
  for (const { path, reason } of fields.problems.slice(before))
    beyond.push({ field: formatPath(path), reason });
  // A match without attributes always holds, and its clause with it.
  const says = (clause: AttributeMatch[][]) => clause.length > 0 && clause.every((match) => match.length > 0);
  return { clauses: clauses.filter(says), beyond };
}

function itemsOf(fields: Fields, list: string): readonly Fields[] {
  const items = fields.objects(list);
  if (items.length === 0) fields.wrong(list, 'is empty: left out, it means any');
  return items;
}

function readMatch(
  fields: Fields,
  words: Vocabulary,
  namespace: string,
  beyond: BeyondL4[],
): AttributeMatch[] {
  const positive = [...Object.keys(words.l4), ...words.l7];
  fields.only([...positive, ...positive.map(negative)]);
  if (fields.has('serviceAccounts') || fields.has('notServiceAccounts'))
    for (const other of ['principals', 'namespaces'])
      if (fields.has(other) || fields.has(negative(other)))
        fields.wrong(other, 'cannot be together with serviceAccounts');
  for (const field of words.l7.flatMap((name) => [name, negative(name)]))
    if (fields.has(field)) {
      readTexts(fields, field);
      beyond.push({ field: formatPath([...fields.path, field]), reason: L7_ONLY });
    }
  return Object.entries(words.l4).flatMap(([field, attribute]) =>
    readAttribute(fields, [field, negative(field)], attribute, namespace, beyond),
  );
}

function readCondition(fields: Fields, namespace: string, beyond: BeyondL4[]): AttributeMatch[] {
  fields.only(['key', 'values', 'notValues']);
  if (!fields.has('values') && !fields.has('notValues')) fields.wrong('values', 'or notValues are required');
  const key = fields.text('key');
  const attribute = Object.hasOwn(CONDITIONS, key) ? CONDITIONS[key]! : null;
  if (attribute !== null) return readAttribute(fields, ['values', 'notValues'], attribute, namespace, beyond);
  if (L7_CONDITION.test(key)) {
    beyond.push({ field: formatPath([...fields.path, 'key']), reason: `'${key}' ${L7_ONLY}` });
    for (const field of ['values', 'notValues']) readTexts(fields, field);
  } else fields.wrong('key', key === '' ? 'is required' : `'${key}' is no condition that is known`);
  return [];
}

/** Empty where nothing (that can be told) is said. */
function readAttribute(
  fields: Fields,
  names: readonly [string, string],
  attribute: L4Attribute,
  namespace: string,
  beyond: BeyondL4[],
): AttributeMatch[] {
  const [values, notValues] = names.map((field) => {
    const read = readValues(fields, field, attribute, namespace);
    if (attribute !== 'trustDomain' || !read.some((value) => value.length > 1 && value.startsWith('*')))
      return read;
    beyond.push({
      field: formatPath([...fields.path, field]),
      reason: "L4 cannot tell by '*' before a text",
    });
    return [];
  }) as [readonly string[], readonly string[]];
  return values.length === 0 && notValues.length === 0 ? [] : [{ attribute, values, notValues }];
}

/** `ipBlocks` → `notIpBlocks`. */
function negative(field: string): string {
  return `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;
}

/** Canonical values; none at all if one of them is bad. */
function readValues(
  fields: Fields,
  field: string,
  attribute: L4Attribute,
  namespace: string,
): readonly string[] {
  const before = fields.problems.length;
  const values = readTexts(fields, field).map((text) => {
    const value = CANONICAL[attribute](text, namespace);
    if (text !== '' && typeof value !== 'string') fields.wrong(field, value.fault);
    return typeof value === 'string' ? value : '';
  });
  return fields.problems.length > before ? [] : values;
}

function readTexts(fields: Fields, field: string): readonly string[] {
  if (!fields.has(field)) return [];
  const before = fields.problems.length;
  const texts = fields.texts(field);
  if (fields.problems.length > before) return texts;
  if (texts.length === 0) fields.wrong(field, 'is empty: left out, it means any');
  if (texts.includes('')) fields.wrong(field, 'has an empty text');
  return texts;
}

type Canonical = (text: string, namespace: string) => string | { readonly fault: string };

const CANONICAL: Readonly<Record<L4Attribute, Canonical>> = {
  // With the scheme it would match nobody (hbone-and-wds.md 3.6), though it is plain what is meant.
  principal: (text) => patternOf(text.startsWith('spiffe://') ? text.slice('spiffe://'.length) : text),
  namespace: patternOf,
  trustDomain: patternOf,
  serviceAccount: accountOf,
  sourceIp: rangeOf,
  destinationIp: rangeOf,
  destinationPort: (text) =>
    /^[1-9]\d{0,4}$/.test(text) && Number(text) <= 65535
      ? text
      : { fault: `must be a port from 1 to 65535, not '${text}'` },
};

function patternOf(text: string): ReturnType<Canonical> {
  const inner = text.startsWith('*') ? text.slice(1) : text.endsWith('*') ? text.slice(0, -1) : text;
  if (text !== '' && !inner.includes('*')) return text;
  return { fault: `may have one '*', first or last, not '${text}'` };
}

function accountOf(text: string, namespace: string): ReturnType<Canonical> {
  const full = text.includes('/') ? text : `${namespace}/${text}`;
  if (/^[a-z0-9-]+\/[a-z0-9.-]+$/.test(full)) return full;
  return { fault: `must be a service account, 'name' or 'namespace/name', not '${text}'` };
}

function rangeOf(text: string): ReturnType<Canonical> {
  const [address = '', length, ...rest] = text.split('/');
  const bytes = tryParseAddress(address);
  const bits = (bytes?.length ?? 0) * 8;
  if (
    bytes === null ||
    rest.length > 0 ||
    (length !== undefined && !(/^\d{1,3}$/.test(length) && Number(length) <= bits))
  )
    return { fault: `must be an IP address or a CIDR, not '${text}'` };
  return `${formatAddress(bytes)}/${length ?? bits}`;
}
