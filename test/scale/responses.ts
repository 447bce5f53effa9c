import { ADDRESS_TYPE_URL, istio } from '../../mesh/proto/index.js';

/** What is looked at of a version of a resource. */
export interface VersionFacts {
  readonly nameId: number;
  readonly version: string;
  /** Of name and version: the sum over what an agent holds tells whether two hold the same. */
  readonly hash: number;
  /** A workload that is announced as captured and healthy. */
  readonly captured: boolean;
  /** `canonical_revision`: the pod's label `version`. */
  readonly revision: string;
}

/** A response as read. */
export interface Reading {
  readonly typeUrl: string;
  readonly nonce: string;
  /** Versions sent, removed names, as ids. */
  readonly content: Content;
}

interface Content {
  readonly versions: readonly number[];
  readonly removed: readonly number[];
}

interface Field {
  readonly number: number;
  readonly start: number;
  readonly end: number;
}

const KEPT_BODIES = 8;

/**
 * Reads the responses of all agents of one process. They all are told the same: what has been read once is compared, not read again, and a version
 * of a resource is decoded once. Ids begin at 1.
 */
export class ResponseReader {
  /** By id; index 0 is nobody's. Names have the type before them: `Address:…`. */
  readonly names: string[] = [''];
  readonly versions: VersionFacts[] = [{ nameId: 0, version: '', hash: 0, captured: false, revision: '' }];
  readonly #nameIds = new Map<string, number>();
  readonly #versionIds = new Map<string, number>();
  readonly #bodies: { readonly typeUrl: string; readonly body: Buffer; readonly content: Content }[] = [];

  read(message: Buffer): Reading {
    let typeUrl = '';
    let nonce = '';
    let bodyStart = message.length;
    // The controller writes what differs between agents first.
    for (const { number, start, end } of fieldsOf(message)) {
      if (number === 4) typeUrl = message.toString('latin1', start, end);
      else if (number === 5) nonce = message.toString('latin1', start, end);
      else if (number === 2 || number === 6) {
        bodyStart = start;
        break;
      }
    }
    if (typeUrl === '' || nonce === '') ({ typeUrl, nonce } = headOf(message));
    return { typeUrl, nonce, content: this.#contentOf(typeUrl, message.subarray(bodyStart), message) };
  }

  #contentOf(typeUrl: string, body: Buffer, message: Buffer): Content {
    const known = this.#bodies.find((one) => one.typeUrl === typeUrl && one.body.equals(body));
    if (known !== undefined) return known.content;
    const content = this.#readContent(typeUrl, message);
    this.#bodies.unshift({ typeUrl, body: Buffer.from(body), content });
    if (this.#bodies.length > KEPT_BODIES) this.#bodies.pop();
    return content;
  }

  #readContent(typeUrl: string, message: Buffer): Content {
    const versions: number[] = [];
    const removed: number[] = [];
    for (const { number, start, end } of fieldsOf(message)) {
      if (number === 2) versions.push(this.#versionOf(typeUrl, message.subarray(start, end)));
      if (number === 6) removed.push(this.nameId(typeUrl, message.toString('utf8', start, end)));
    }
    return { versions, removed };
  }

  nameId(typeUrl: string, name: string): number {
    const key = `${typeUrl.slice(typeUrl.lastIndexOf('.') + 1)}:${name}`;
    let id = this.#nameIds.get(key);
    if (id === undefined) {
      id = this.names.push(key) - 1;
      this.#nameIds.set(key, id);
    }
    return id;
  }

  #versionOf(typeUrl: string, resource: Buffer): number {
    let name = '';
    let version = '';
    let packed: Buffer = Buffer.alloc(0);
    for (const { number, start, end } of fieldsOf(resource)) {
      if (number === 1) version = resource.toString('latin1', start, end);
      if (number === 3) name = resource.toString('utf8', start, end);
      if (number === 2) packed = resource.subarray(start, end);
    }
    const nameId = this.nameId(typeUrl, name);
    const key = `${nameId}/${version}`;
    let id = this.#versionIds.get(key);
    if (id === undefined) {
      const facts = typeUrl === ADDRESS_TYPE_URL ? workloadFacts(packed) : { captured: false, revision: '' };
      id = this.versions.push({ nameId, version, hash: hashOf(`${name}/${version}`), ...facts }) - 1;
      this.#versionIds.set(key, id);
    }
    return id;
  }
}

function workloadFacts(packed: Buffer): Pick<VersionFacts, 'captured' | 'revision'> {
  for (const { number, start, end } of fieldsOf(packed)) {
    if (number !== 2) continue;
    const { workload } = istio.workload.Address.decode(packed.subarray(start, end));
    if (workload == null) break;
    const isHbone = workload.tunnelProtocol === istio.workload.TunnelProtocol.HBONE;
    const isHealthy = (workload.status ?? 0) === istio.workload.WorkloadStatus.HEALTHY;
    return { captured: isHbone && isHealthy, revision: workload.canonicalRevision ?? '' };
  }
  return { captured: false, revision: '' };
}

function headOf(message: Buffer): { typeUrl: string; nonce: string } {
  const head = { typeUrl: '', nonce: '' };
  for (const { number, start, end } of fieldsOf(message)) {
    if (number === 4) head.typeUrl = message.toString('latin1', start, end);
    if (number === 5) head.nonce = message.toString('latin1', start, end);
  }
  return head;
}

/** Length-delimited fields: all that these messages have at this level. */
function* fieldsOf(bytes: Buffer): Generator<Field> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) !== 2) throw new Error(`field ${tag >> 3} of wire type ${tag & 7}`);
    const length = varint();
    yield { number: tag >> 3, start: at, end: at + length };
    at += length;
  }
}

/** FNV-1a, 32 bits. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++)
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
