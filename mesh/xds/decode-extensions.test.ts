import { expect, test } from '@jest/globals';
import {
  ACCESS_LOG_POLICY_TYPE_URL,
  culvert,
  istio,
  SERVICE_DNS_TYPE_URL,
  WORKLOAD_DNS_TYPE_URL,
} from '../proto/index.js';
import { decodeAddress } from './decode-address.js';

const extension = (typeUrl: string, value: Uint8Array) => [
  { name: 'dns', config: { type_url: typeUrl, value } },
];

function decodeService(dns: culvert.workload.ServiceDns.$Properties) {
  const extensions = extension(SERVICE_DNS_TYPE_URL, culvert.workload.ServiceDns.encode(dns).finish());
  const service = { namespace: 'shop', hostname: 'web.local', extensions };
  return decodeAddress('shop/web.local', istio.workload.Address.encode({ service }).finish());
}

test('what DNS answers beyond addresses', () => {
  const ports = [{ name: 'web', port: 80, protocol: 'tcp' }];
  expect(decodeService({ externalName: 'example.org', ports })).toMatchObject({
    service: { dns: { externalName: 'example.org', ports } },
  });
  const own = culvert.workload.WorkloadDns.encode({ hostname: 'db-0', subdomain: 'db' }).finish();
  const workload = { uid: 'u', namespace: 'shop', extensions: extension(WORKLOAD_DNS_TYPE_URL, own) };
  expect(decodeAddress('u', istio.workload.Address.encode({ workload }).finish())).toMatchObject({
    workload: { dns: { hostname: 'db-0', subdomain: 'db' } },
  });
});

test('a port that is none, and a protocol that is none, are refused', () => {
  expect(decodeService({ ports: [{ name: 'web', port: 70000, protocol: 'quic' }] })).toMatchObject({
    kind: 'rejected',
    problems: [
      'service_dns.ports[0].protocol: is not tcp, udp or sctp',
      'service_dns.ports[0].port: 70000 is no port',
    ],
  });
});

test('what is written of connections', () => {
  const decode = (policy: culvert.workload.AccessLogPolicy.$Properties) => {
    const value = culvert.workload.AccessLogPolicy.encode(policy).finish();
    const workload = {
      uid: 'u',
      namespace: 'shop',
      extensions: extension(ACCESS_LOG_POLICY_TYPE_URL, value),
    };
    return decodeAddress('u', istio.workload.Address.encode({ workload }).finish());
  };
  expect(decode({})).toMatchObject({
    workload: { accessLog: { disabled: false, samplingPerMille: 1000, level: 'debug' } },
  });
  expect(decode({ disabled: true, samplingPerMille: { value: 0 }, level: 2 })).toMatchObject({
    workload: { accessLog: { disabled: true, samplingPerMille: 0, level: 'warn' } },
  });
  expect(decode({ samplingPerMille: { value: 1001 }, level: 9 as never })).toMatchObject({
    problems: ['access_log.sampling_per_mille: is above 1000', 'access_log.level: value 9 is not supported'],
  });
});
