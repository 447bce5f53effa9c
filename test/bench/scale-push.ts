import { tryParseAddress } from '../../mesh/common/address.js';
import {
  ADDRESS_TYPE_URL,
  AUTHORIZATION_TYPE_URL,
  encodeDeltaResponse,
  encodeResource,
  envoy,
  istio,
} from '../../mesh/proto/index.js';
import { updateWith } from '../../mesh/store/fixtures.js';
import {
  type AuthorizationPolicy,
  type Port,
  type Service,
  type StoreUpdate,
  serviceKeyOf,
  type Workload,
} from '../../mesh/store/index.js';
import { decodeAddress, decodeAuthorization } from '../../mesh/xds/index.js';

/** The two pushes by which a controller would say what `scaleSnapshot` makes. */
export function encodePushes({ workloads, services, policies }: StoreUpdate): readonly Buffer[] {
  const addresses = [
    ...workloads.map((one) => address(one.uid, { workload: workloadMessage(one) })),
    ...services.map((one) => address(serviceKeyOf(one), { service: serviceMessage(one) })),
  ];
  return [push(ADDRESS_TYPE_URL, addresses), push(AUTHORIZATION_TYPE_URL, policies.map(authorization))];
}

/** As the agent's main thread reads them. */
export function decodePushes(pushes: readonly Buffer[]): StoreUpdate {
  const workloads: Workload[] = [];
  const services: Service[] = [];
  const policies: AuthorizationPolicy[] = [];
  for (const bytes of pushes) {
    const response = envoy.service.discovery.v3.DeltaDiscoveryResponse.decode(bytes);
    for (const { name: given, resource } of response.resources ?? []) {
      const name = given ?? '';
      const value = resource?.value ?? new Uint8Array();
      if (response.typeUrl === AUTHORIZATION_TYPE_URL) {
        policies.push(decodeAuthorization(name, value).policy);
        continue;
      }
      const decoded = decodeAddress(name, value);
      if (decoded.kind === 'rejected') throw new Error(`${name}: ${decoded.problems.join('; ')}`);
      if (decoded.kind === 'workload') workloads.push(decoded.workload);
      else services.push(decoded.service);
    }
  }
  return updateWith({ snapshot: true, workloads, services, policies });
}

function push(typeUrl: string, resources: readonly Buffer[]): Buffer {
  return encodeDeltaResponse({ typeUrl, nonce: '1', systemVersion: '1', resources, removed: [] });
}

function address(name: string, message: istio.workload.Address.$Properties): Buffer {
  const value = istio.workload.Address.encode(message).finish();
  return encodeResource({ name, version: '1', aliases: [], typeUrl: ADDRESS_TYPE_URL, value });
}

const portsMessage = (ports: readonly Port[]) => ({ ports: ports.map((port) => ({ ...port })) });

function workloadMessage(workload: Workload): istio.workload.Workload.$Properties {
  const { uid, name, namespace, serviceAccount, node, canonicalName, workloadName, locality } = workload;
  return {
    ...{ uid, name, namespace, serviceAccount, node, canonicalName, workloadName },
    addresses: workload.addresses.map((text) => tryParseAddress(text)!),
    tunnelProtocol: istio.workload.TunnelProtocol.HBONE,
    locality: { ...locality },
    services: Object.fromEntries([...workload.services].map(([key, ports]) => [key, portsMessage(ports)])),
  };
}

function serviceMessage(service: Service): istio.workload.Service.$Properties {
  const { name, namespace, hostname, vips } = service;
  return {
    ...{ name, namespace, hostname },
    addresses: vips.map(({ network, address: text }) => ({ network, address: tryParseAddress(text)! })),
    ...portsMessage(service.ports),
  };
}

function authorization(policy: AuthorizationPolicy): Buffer {
  const value = istio.security.Authorization.encode({
    name: policy.key.slice(policy.key.indexOf('/') + 1),
    namespace: policy.namespace,
    scope: istio.security.Scope.NAMESPACE,
    action: istio.security.Action.DENY,
    groups: policy.groups.map((rules) => ({
      rules: rules.map((matches) => ({
        matches: matches.map(({ principals, destinationPorts }) => ({
          principals: principals.map((one) => ({ exact: one.kind === 'presence' ? '' : one.value })),
          destinationPorts: [...destinationPorts],
        })),
      })),
    })),
  }).finish();
  return encodeResource({
    name: policy.key,
    version: '1',
    aliases: [],
    typeUrl: AUTHORIZATION_TYPE_URL,
    value,
  });
}
