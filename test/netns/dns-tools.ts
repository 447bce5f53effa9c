import type { LabPod, LabProcess } from '../lab/index.js';

/**
 * A client and a server of DNS in Python, for tests: implementations that share nothing with agent/dns. The server answers by the first label of
 * what it is asked, and prints each question.
 */
const codec = `
import json, os, select, socket, struct, sys, time
TYPES = {'A': 1, 'CNAME': 5, 'SOA': 6, 'PTR': 12, 'TXT': 16, 'AAAA': 28, 'SRV': 33, 'OPT': 41}
NAMES = {v: k for k, v in TYPES.items()}
def name(text):
    return b''.join(bytes([len(l)]) + l.encode() for l in text.rstrip('.').split('.') if l) + b'\\0'
def read_name(m, at):
    labels, end = [], None
    while m[at]:
        if m[at] >= 0xc0:
            end = end or at + 2
            at = (m[at] & 0x3f) << 8 | m[at + 1]
        else:
            labels.append(m[at + 1:at + 1 + m[at]].decode()); at += 1 + m[at]
    return '.'.join(labels), end or at + 1
def query(text, qtype='A', id=7, edns=None):
    m = struct.pack('>6H', id, 0x0100, 1, 0, 0, 1 if edns else 0) + name(text) + struct.pack('>2H', TYPES[qtype], 1)
    return m + (b'\\0' + struct.pack('>HHIH', 41, edns, 0, 0) if edns else b'')
def rdata(m, t, at, n):
    if t == 1: return socket.inet_ntop(socket.AF_INET, m[at:at + 4])
    if t == 28: return socket.inet_ntop(socket.AF_INET6, m[at:at + 16])
    if t in (5, 12): return read_name(m, at)[0]
    if t == 33: return '%d %d %d ' % struct.unpack_from('>3H', m, at) + read_name(m, at + 6)[0]
    return m[at:at + n].hex()
def parse(m):
    id, flags, qd, an, ns, ar = struct.unpack_from('>6H', m)
    at, records = 12, []
    for _ in range(qd): at = read_name(m, at)[1] + 4
    for _ in range(an):
        owner, at = read_name(m, at)
        t, c, ttl, n = struct.unpack_from('>HHIH', m, at)
        records.append({'owner': owner, 'type': NAMES.get(t, t), 'ttl': ttl, 'data': rdata(m, t, at + 10, n)})
        at += 10 + n
    return {'id': id, 'rcode': flags & 15, 'tc': bool(flags & 0x200), 'aa': bool(flags & 0x400), 'answers': records, 'bytes': len(m)}
def tcp_message(s):
    def exactly(n):
        b = b''
        while len(b) < n:
            piece = s.recv(n - len(b))
            if not piece: raise EOFError
            b += piece
        return b
    return exactly(struct.unpack('>H', exactly(2))[0])
`;

const serverProgram = `
host = sys.argv[1]
family = socket.AF_INET6 if ':' in host else socket.AF_INET
u = socket.socket(family, socket.SOCK_DGRAM); u.bind((host, 53))
t = socket.socket(family, socket.SOCK_STREAM); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind((host, 53)); t.listen(16)
def record(owner, qtype, ttl, data): return owner + struct.pack('>HHIH', qtype, 1, ttl, len(data)) + data
def respond(m, over):
    id, flags = struct.unpack_from('>2H', m)
    text, at = read_name(m, 12)
    qtype = struct.unpack_from('>H', m, at)[0]
    question = m[12:at + 4]
    print(json.dumps({'name': text.lower(), 'type': NAMES.get(qtype, qtype), 'over': over, 'id': id, 'edns': len(m) > at + 4}), flush=True)
    first = text.lower().split('.')[0]
    answers, authority, rcode, tc = [], [], 0, 0
    soa = record(name('example.'), 6, 60, name('ns.') + name('me.') + struct.pack('>5I', 1, 2, 3, 4, 60))
    if first == 'nx': rcode, authority = 3, [soa]
    elif first == 'fail': rcode = 2
    elif first == 'silent': return []
    elif first == 'big':
        if over == 'udp': tc = 0x200
        else: answers = [record(b'\\xc0\\x0c', 1, 60, socket.inet_aton('198.51.100.%d' % i)) for i in range(1, 101)]
    elif qtype == 1: answers = [record(b'\\xc0\\x0c', 1, 60, socket.inet_aton('198.51.100.77'))]
    else: authority = [soa]
    def message(id, answers, rcode=rcode):
        return struct.pack('>6H', id, 0x8180 | tc | rcode, 1, len(answers), len(authority), 0) + question + b''.join(answers + authority)
    right = message(id, answers)
    if first == 'spoof':
        evil = [record(b'\\xc0\\x0c', 1, 60, socket.inet_aton('203.0.113.66'))]
        other = question.replace(b'spoof', b'spoon')
        wrong = struct.pack('>6H', id, 0x8180, 1, 1, 0, 0) + other + evil[0]
        return [message(id ^ 1, evil), wrong, b'\\xff' * 20, m, right]
    return [right]
print('ready', flush=True)
while True:
    for s in select.select([u, t], [], [])[0]:
        if s is u:
            m, source = u.recvfrom(65535)
            for r in respond(m, 'udp'): u.sendto(r, source)
        else:
            c, source = t.accept(); c.settimeout(5)
            try:
                for r in respond(tcp_message(c), 'tcp'): c.sendall(struct.pack('>H', len(r)) + r)
            except (EOFError, OSError): pass
            c.close()
`;

const clientProgram = `
o = json.loads(sys.argv[1])
server = o.get('server', '192.0.2.53')
family = socket.AF_INET6 if ':' in server else socket.AF_INET
started = time.monotonic()
def ask():
    s = socket.socket(family, socket.SOCK_STREAM if o.get('how') == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(o.get('timeout', 9))
    m = query(o['name'], o.get('type', 'A'), 7, o.get('edns'))
    if o.get('how') == 'tcp':
        s.connect((server, 53)); s.sendall(struct.pack('>H', len(m)) + m)
        return {**parse(tcp_message(s)), 'from': list(s.getpeername()[:2])}
    if o.get('how') == 'connected':
        s.connect((server, 53)); s.send(m); r = s.recv(65535)
        return {**parse(r), 'from': list(s.getpeername()[:2])}
    s.sendto(m, (server, 53)); r, source = s.recvfrom(65535)
    return {**parse(r), 'from': list(source[:2])}
try: result = ask()
except OSError as e: result = {'error': type(e).__name__ if e.errno is None else os.strerror(e.errno)}
print(json.dumps({**result, 'ms': int(1000 * (time.monotonic() - started))}))
`;

export interface DnsAnswer {
  readonly error?: string;
  readonly rcode: number;
  readonly tc: boolean;
  readonly aa: boolean;
  readonly answers: readonly { owner: string; type: string; ttl: number; data: string }[];
  readonly bytes: number;
  /** Who has answered, as the socket says. */
  readonly from: readonly [string, number];
  readonly ms: number;
}

export interface DnsQuestion {
  readonly name: string;
  readonly type?: string;
  readonly server?: string;
  readonly how?: 'unconnected' | 'connected' | 'tcp';
  /** Advertised size. */
  readonly edns?: number;
  /** Seconds. */
  readonly timeout?: number;
}

/** Asks from inside a pod. */
export async function ask(pod: LabPod, question: DnsQuestion): Promise<DnsAnswer> {
  const output = await pod.output(['python3', '-c', codec + clientProgram, JSON.stringify(question)]);
  return JSON.parse(output) as DnsAnswer;
}

/** A resolver on port 53 of an address of the pod. */
export async function startDnsServer(pod: LabPod, address = pod.ip): Promise<LabProcess> {
  const server = pod.spawn(['python3', '-c', codec + serverProgram, address]);
  await server.waitForOutput(/ready/);
  return server;
}

export interface SeenQuestion {
  readonly name: string;
  readonly type: string;
  readonly over: 'udp' | 'tcp';
  readonly id: number;
  readonly edns: boolean;
}

/** What a server of `startDnsServer` was asked so far. */
export function seenBy(server: LabProcess): SeenQuestion[] {
  return server.stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as SeenQuestion);
}
