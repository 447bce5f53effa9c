import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { EndpointSlice, Service } from './services.js';

const TYPES = { a: 1, cname: 5, aaaa: 28 } as const;
const TTL_SECONDS = 5;
const RCODES = { noError: 0, serverFailure: 2, noSuchName: 3 } as const;

interface Question {
  readonly id: number;
  readonly name: string;
  readonly type: number;
  /** Where the question ends in the message. */
  readonly end: number;
}

/** What a name stands for; null: there is no such name here. */
type Answer = { readonly addresses: readonly string[] } | { readonly alias: string } | null;

export interface NamesDeps {
  readonly services: ReadonlyMap<string, Service>;
  readonly slices: ReadonlyMap<string, EndpointSlice>;
  readonly say: (line: string) => void;
}

/**
 * What CoreDNS does, as NodeLocal DNSCache does it: answers for Services, by UDP, at the cluster's address on this node itself. Names
 * outside of the cluster are refused: a lab has no way out.
 */
export function serveNames(
  options: { readonly address: string; readonly domain: string; readonly signal: AbortSignal },
  deps: NamesDeps,
): void {
  execFileSync('ip', ['address', 'replace', `${options.address}/32`, 'dev', 'lo']);
  const socket = createSocket({ type: 'udp4', signal: options.signal });
  socket.on('error', (error) => deps.say(`names: ${error.message}`));
  socket.on('message', (message, from) => {
    const question = tryQuestion(message);
    if (question === null) return;
    const suffix = `.svc.${options.domain}`;
    const isOurs = question.name === options.domain || question.name.endsWith(`.${options.domain}`);
    const service = question.name.endsWith(suffix) ? question.name.slice(0, -suffix.length) : null;
    const answer = service === null ? null : answerOf(service.split('.'), deps);
    const code = answer === null ? (isOurs ? RCODES.noSuchName : RCODES.serverFailure) : RCODES.noError;
    socket.send(encode(message, question, answer, code), from.port, from.address);
  });
  socket.bind(53, options.address);
}

/** `[service, namespace]`, or `[host, service, namespace]` of a headless one. */
function answerOf(labels: readonly string[], { services, slices }: NamesDeps): Answer {
  const [name, namespace] = labels.slice(-2);
  const service = [...services.values()].find(
    ({ metadata }) => metadata.name === name && metadata.namespace === namespace,
  );
  if (service === undefined || labels.length > 3) return null;
  if (service.spec.type === 'ExternalName') return { alias: service.spec.externalName ?? '' };
  const ips = (service.spec.clusterIPs ?? []).filter((ip) => ip !== 'None' && ip !== '');
  if (ips.length > 0) return labels.length === 2 ? { addresses: ips } : null;
  const host = labels.length === 3 ? labels[0] : null;
  const endpoints = [...slices.values()]
    .filter(
      ({ metadata }) =>
        metadata.namespace === namespace && metadata.labels?.['kubernetes.io/service-name'] === name,
    )
    .flatMap((slice) => slice.endpoints ?? [])
    .filter(({ conditions }) => conditions?.ready !== false)
    .filter(({ hostname }) => host === null || hostname === host);
  const addresses = endpoints.flatMap((endpoint) => endpoint.addresses);
  return host !== null && addresses.length === 0 ? null : { addresses };
}

function tryQuestion(message: Buffer): Question | null {
  if (message.length < 17 || message.readUInt16BE(4) !== 1) return null;
  const labels: string[] = [];
  let at = 12;
  for (;;) {
    const length = message[at] ?? 64;
    if (length === 0) break;
    if (length > 63 || at + length >= message.length) return null;
    labels.push(message.toString('latin1', at + 1, at + 1 + length).toLowerCase());
    at += 1 + length;
  }
  if (at + 5 > message.length) return null;
  return {
    id: message.readUInt16BE(0),
    name: labels.join('.'),
    type: message.readUInt16BE(at + 1),
    end: at + 5,
  };
}

function encode(message: Buffer, question: Question, answer: Answer, code: number): Buffer {
  const records: Buffer[] = [];
  if (answer !== null && 'alias' in answer) records.push(record(TYPES.cname, nameBytes(answer.alias)));
  else
    for (const address of answer?.addresses ?? []) {
      const type = isIPv6(address) ? TYPES.aaaa : TYPES.a;
      if (type === question.type) records.push(record(type, addressBytes(address)));
    }
  const head = Buffer.alloc(12);
  head.writeUInt16BE(question.id, 0);
  // An answer, authoritative; recursion desired as it was asked, and available.
  head.writeUInt16BE(0x8480 | (message.readUInt16BE(2) & 0x0100) | code, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(records.length, 6);
  return Buffer.concat([head, message.subarray(12, question.end), ...records]);
}

/** Of the name that was asked for. */
function record(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(0xc00c, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt32BE(TTL_SECONDS, 6);
  head.writeUInt16BE(data.length, 10);
  return Buffer.concat([head, data]);
}

function nameBytes(name: string): Buffer {
  const labels = name.split('.').filter((label) => label !== '');
  return Buffer.concat([
    ...labels.map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])),
    Buffer.from([0]),
  ]);
}

function addressBytes(address: string): Buffer {
  if (!isIPv6(address)) return Buffer.from(address.split('.').map(Number));
  const [head = '', tail] = address.split('::');
  const groups = (text: string): string[] => text.split(':').filter((group) => group !== '');
  const [left, right] = [groups(head), groups(tail ?? '')];
  const middle = Array<string>(8 - left.length - right.length).fill('0');
  const bytes = Buffer.alloc(16);
  for (const [index, group] of [...left, ...middle, ...right].entries())
    bytes.writeUInt16BE(Number.parseInt(group, 16), 2 * index);
  return bytes;
}
