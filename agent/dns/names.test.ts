import { beforeEach, describe, expect, test } from '@jest/globals';
import { formatAddress } from '../../mesh/common/address.js';
import { serviceWith, updateWith, workloadWith } from '../../mesh/store/fixtures.js';
import { createStore, type Service, type Store, type Workload } from '../../mesh/store/index.js';
import { readName } from './name.js';
import { Names } from './names.js';
import { recordType } from './types.js';

const { a, aaaa, srv, ptr, cname } = recordType;
const domain = 'svc.cluster.local';
const vip = (address: string, network = '', prefixLength: number | null = null) => ({
  address,
  network,
  prefixLength,
});

let store: Store;
let names: Names;
beforeEach(() => {
  store = createStore();
  names = new Names({ clusterDomain: 'cluster.local' }, { store, random: () => 0 });
});

function add(...services: (Partial<Service> & { hostname: string })[]): void {
  store.apply(updateWith({ services: services.map(serviceWith) }));
}
function endpoint(service: string, fields: Partial<Workload> & { uid: string }): void {
  const services = new Map([[service, [{ servicePort: 80, targetPort: 8080 }]]]);
  store.apply(updateWith({ workloads: [workloadWith({ services, namespace: 'shop', ...fields })] }));
}

/** Each record as `owner type data`, `@` for the name asked for; null: not ours. */
function ask(name: string, type: number = a, namespace = 'shop'): string[] | null {
  const answer = names.answer({ namespace, network: '' }, { name, type, class: 1 });
  if (answer === null) return null;
  const lines = answer.records.map(({ owner, type: of, data }) => {
    const bytes = Buffer.from(data);
    const text =
      of === a || of === aaaa
        ? formatAddress(bytes)
        : of === srv
          ? `${bytes.readUInt16BE(4)} ${readName(bytes, 6).name}`
          : readName(bytes, 0).name;
    return `${owner ?? '@'} ${Object.entries(recordType).find(([, value]) => value === of)![0]} ${text}`;
  });
  return answer.alias === null ? lines : [...lines, `→ ${answer.alias}`];
}

describe('services', () => {
  test('by family and network; a family that they have not is an empty answer', () => {
    add({
      hostname: `web.shop.${domain}`,
      namespace: 'shop',
      vips: [vip('10.0.0.1'), vip('10.9.9.9', 'far')],
    });
    expect(ask(`web.shop.${domain}`)).toEqual(['@ a 10.0.0.1']);
    expect(ask(`web.shop.${domain}`, aaaa)).toEqual([]);
    expect(ask(`web.shop.${domain}`, 16)).toEqual([]);
    expect(ask(`web.shop.${domain}`, recordType.any)).toEqual(['@ a 10.0.0.1']);
    expect(ask(`none.shop.${domain}`)).toBeNull();
    expect(ask('')).toBeNull();
  });

  test('short names in the namespace of the client', () => {
    add({ hostname: `web.shop.${domain}`, namespace: 'shop', vips: [vip('10.0.0.1')] });
    for (const name of ['web', 'web.shop', 'web.shop.svc']) expect(ask(name)).toEqual(['@ a 10.0.0.1']);
    expect(ask('web', a, 'other')).toBeNull();
    expect(ask('web.shop', a, 'other')).toEqual(['@ a 10.0.0.1']);
  });

  test('a search suffix too many is taken off, and told by a CNAME', () => {
    add(
      { hostname: 'api.example.com', vips: [vip('240.240.0.1')] },
      { hostname: `web.shop.${domain}`, vips: [vip('10.0.0.1')] },
    );
    for (const suffix of [`shop.${domain}`, domain, 'cluster.local'])
      expect(ask(`api.example.com.${suffix}`)).toEqual([
        '@ cname api.example.com',
        'api.example.com a 240.240.0.1',
      ]);
    expect(ask(`api.example.com.other.${domain}`)).toBeNull();
    expect(ask(`web.shop.shop.${domain}`)).toEqual([
      `@ cname web.shop.${domain}`,
      `web.shop.${domain} a 10.0.0.1`,
    ]);
  });

  test('what its namespace keeps to itself others do not see; the own one first, then the canonical one', () => {
    const hostname = 'api.example.com';
    add(
      { hostname, namespace: 'a', vips: [vip('240.0.0.1')], visibility: 'namespace' },
      { hostname, namespace: 'b', vips: [vip('240.0.0.2')] },
      { hostname, namespace: 'c', vips: [vip('240.0.0.3')], canonical: true },
    );
    expect(ask(hostname, a, 'a')).toEqual(['@ a 240.0.0.1']);
    expect(ask(hostname, a, 'b')).toEqual(['@ a 240.0.0.2']);
    expect(ask(hostname, a, 'z')).toEqual(['@ a 240.0.0.3']);
  });

  test('wildcards: the closest, below an exact name; not the name itself', () => {
    add(
      { hostname: '*.example.com', vips: [vip('240.0.0.1')] },
      { hostname: '*.deep.example.com', vips: [vip('240.0.0.2')] },
      { hostname: 'one.example.com', vips: [vip('240.0.0.3')] },
    );
    expect(ask('any.example.com')).toEqual(['@ a 240.0.0.1']);
    expect(ask('a.b.example.com')).toEqual(['@ a 240.0.0.1']);
    expect(ask('x.deep.example.com')).toEqual(['@ a 240.0.0.2']);
    expect(ask('one.example.com')).toEqual(['@ a 240.0.0.3']);
    expect(ask('example.com')).toBeNull();
  });

  test('a host outside the cluster without an address of its own is others’ business', () => {
    add({ hostname: 'api.example.com' }, { hostname: 'range.example.com', vips: [vip('10.0.0.0', '', 8)] });
    expect([ask('api.example.com'), ask('range.example.com')]).toEqual([null, null]);
  });

  test('ExternalName: a CNAME, with what we know of the other name', () => {
    const dns = (externalName: string) => ({ externalName, ports: [] });
    add(
      { hostname: `out.shop.${domain}`, dns: dns('db.example.com') },
      { hostname: `in.shop.${domain}`, dns: dns(`web.shop.${domain}`) },
      { hostname: `loop.shop.${domain}`, dns: dns(`loop.shop.${domain}`) },
      { hostname: `web.shop.${domain}`, vips: [vip('10.0.0.1')] },
    );
    expect(ask('out')).toEqual(['@ cname db.example.com', '→ db.example.com']);
    expect(ask('out', cname)).toEqual(['@ cname db.example.com']);
    expect(ask('in')).toEqual([`@ cname web.shop.${domain}`, `web.shop.${domain} a 10.0.0.1`]);
    expect(ask('loop')).toEqual([`@ cname loop.shop.${domain}`, `→ loop.shop.${domain}`]);
  });
});

describe('headless services', () => {
  const peers = `peers.shop.${domain}`;
  const key = `shop/${peers}`;
  beforeEach(() => {
    const ports = [{ servicePort: 80, targetPort: 8080 }];
    const dns = { externalName: '', ports: [{ name: 'Web', port: 80, protocol: 'tcp' as const }] };
    add({ hostname: peers, namespace: 'shop', ports, dns });
    endpoint(key, {
      uid: '1',
      addresses: ['10.1.0.1', 'fd00::1'],
      dns: { hostname: 'peers-0', subdomain: 'peers' },
    });
    endpoint(key, { uid: '2', addresses: ['10.1.0.2'] });
    endpoint(key, { uid: '3', addresses: ['10.1.0.3'], healthy: false });
    endpoint(key, { uid: '4', addresses: ['10.1.0.4'], network: 'far' });
  });

  test('healthy endpoints of the own network', () => {
    expect(ask(peers)?.sort()).toEqual(['@ a 10.1.0.1', '@ a 10.1.0.2']);
    expect(ask(peers, aaaa)).toEqual(['@ aaaa fd00::1']);
  });

  test('all, where the service wants it; none is an empty answer', () => {
    const loadBalancing = { routingPreference: [], mode: 'unspecified', healthPolicy: 'allow-all' } as const;
    add(
      { hostname: peers, namespace: 'shop', loadBalancing },
      { hostname: `no.shop.${domain}`, namespace: 'shop' },
    );
    expect(ask(peers)).toHaveLength(3);
    expect(ask(`no.shop.${domain}`)).toEqual([]);
  });

  test('pods by hostname and by address, also not ready ones', () => {
    expect(ask(`peers-0.${peers}`)).toEqual(['@ a 10.1.0.1']);
    expect(ask(`10-1-0-3.${peers}`)).toEqual(['@ a 10.1.0.3']);
    expect(ask(`10-1-0-4.${peers}`)).toBeNull();
    expect(ask('peers-0.peers.shop.svc')).toEqual(['@ a 10.1.0.1']);
  });

  test('SRV by port name and of all ports; PTR of pods that have a name', () => {
    const all = [`@ srv 8080 10-1-0-2.${peers}`, `@ srv 8080 peers-0.${peers}`];
    expect(ask(`_web._tcp.${peers}`, srv)?.sort()).toEqual(all);
    expect(ask(peers, srv)?.sort()).toEqual(all);
    expect(ask(`_web._udp.${peers}`, srv)).toBeNull();
    expect(ask(`_web._tcp.${peers}`)).toEqual([]);
    expect(ask('1.0.1.10.in-addr.arpa', ptr)).toEqual([`@ ptr peers-0.${peers}`]);
    expect(ask('2.0.1.10.in-addr.arpa', ptr)).toBeNull();
  });
});

test('PTR and SRV of services with addresses', () => {
  const hostname = `web.shop.${domain}`;
  add(
    {
      hostname,
      namespace: 'shop',
      vips: [vip('10.0.0.1'), vip('fd00::5')],
      ports: [{ servicePort: 80, targetPort: 8080 }],
    },
    { hostname: `own.other.${domain}`, namespace: 'other', vips: [vip('10.0.0.2')], visibility: 'namespace' },
    { hostname: 'range.example.com', vips: [vip('10.5.0.0', '', 16)] },
  );
  expect(ask('1.0.0.10.in-addr.arpa', ptr)).toEqual([`@ ptr ${hostname}`]);
  expect(ask(`5.${'0.'.repeat(27)}0.0.d.f.ip6.arpa`, ptr)).toEqual([`@ ptr ${hostname}`]);
  expect(ask('2.0.0.10.in-addr.arpa', ptr)).toBeNull();
  expect(ask('1.1.5.10.in-addr.arpa', ptr)).toBeNull();
  expect(ask(hostname, srv)).toEqual([`@ srv 80 ${hostname}`]);
});
