import { Fields } from './fields.js';
import type { Decoder, RawObject, Remark } from './types.js';

/** How objects of one kind are read. */
export interface KindDecoder<T> {
  readonly namespaced: boolean;
  /** Form of metadata.name. */
  readonly nameForm: 'label' | 'subdomain';
  /** Null: none of this program's business. What is wrong goes to `fields`, which makes the object invalid. */
  readonly decode: (fields: Fields, namespace: string, name: string) => T | null;
  /**
   * There: `decode` makes of an invalid object one that allows no more than it may have meant to; it holds its place until there is a good version.
   * Says what that means.
   */
  readonly standIn?: (value: T) => string;
}

/**
 * The decoder for kinds by `<apiVersion> <kind>`. Names are held to their DNS forms: identities (`spiffe://…/ns/<namespace>/sa/<account>`) and
 * resource names are built of them. `remarkOn` says what is to be known of objects of other kinds.
 */
export function decoderOf<T>(
  kinds: ReadonlyMap<string, KindDecoder<T>>,
  remarkOn: (object: RawObject) => Remark | null = () => null,
): Decoder<T> {
  const versions = versionsByKind(kinds.keys());
  return (object) => {
    const inVersions = versions.get(`${groupOf(object.apiVersion)} ${object.kind}`);
    if (inVersions === undefined) {
      const remark = remarkOn(object);
      return { outcome: 'unknown-kind', ...(remark === null ? {} : { remark }) };
    }
    const isKnown = inVersions.includes(object.apiVersion);
    const kind = kinds.get(`${isKnown ? object.apiVersion : inVersions[0]!} ${object.kind}`)!;
    const fields = new Fields(object);
    // A policy must not get lost by it: it is read as what it most likely is.
    if (!isKnown) fields.wrong('apiVersion', `${object.kind} is read in ${inVersions.join(', ')}`);
    const metadata = fields.object('metadata');
    const name = metadata.name('name', kind.nameForm);
    const namespace = metadata.name('namespace', 'label', kind.namespaced ? 'default' : '');
    if (!kind.namespaced && namespace !== '') metadata.wrong('namespace', `${object.kind} has no namespace`);
    const value = kind.decode(fields, namespace, name);
    const key = keyOf(object.kind, kind.namespaced ? namespace : '', name);
    const { problems, remarks } = fields;
    const about = { key, ...(remarks.length === 0 ? {} : { remarks }) };
    if (problems.length > 0) return { outcome: 'invalid', ...about, problems, ...standInOf(kind, value) };
    return value === null ? { outcome: 'ignored', key } : { outcome: 'object', ...about, value };
  };
}

function standInOf<T>({ standIn }: KindDecoder<T>, value: T | null) {
  return standIn === undefined || value === null ? {} : { inPlace: value, standIn: standIn(value) };
}

/** The apiVersions of each `<group> <kind>`. */
function versionsByKind(kinds: Iterable<string>): ReadonlyMap<string, readonly string[]> {
  const versions = new Map<string, string[]>();
  for (const text of kinds) {
    const [apiVersion = '', kind = ''] = text.split(' ');
    const key = `${groupOf(apiVersion)} ${kind}`;
    versions.set(key, [...(versions.get(key) ?? []), apiVersion]);
  }
  return versions;
}

/** '' of Kubernetes' own `v1`. */
export function groupOf(apiVersion: string): string {
  return apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
}

/** `Pod/shop/cart-1`, `Node/n1`. */
export function keyOf(kind: string, namespace: string, name: string): string {
  return namespace === '' ? `${kind}/${name}` : `${kind}/${namespace}/${name}`;
}
