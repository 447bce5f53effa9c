import { istio } from '../../mesh/proto/index.js';
import type { Pod, Service, ServicePort } from '../model/index.js';

const { AppProtocol } = istio.workload;

/** The mesh carries TCP only. */
export function tcpPorts(service: Service): readonly ServicePort[] {
  return service.ports.filter(({ protocol }) => protocol === 'TCP');
}

/** Where the pod serves the port; null if the pod has no port of that name. */
export function targetPortOf(port: ServicePort, pod: Pod): number | null {
  if (typeof port.targetPort === 'number') return port.targetPort;
  const named = pod.ports.find(({ name, protocol }) => name === port.targetPort && protocol === 'TCP');
  return named?.port ?? null;
}

const BY_NAME: Readonly<Record<string, istio.workload.AppProtocol>> = {
  http: AppProtocol.HTTP11,
  http2: AppProtocol.HTTP2,
  grpc: AppProtocol.GRPC,
  tcp: AppProtocol.TCP,
  tls: AppProtocol.TLS,
  https: AppProtocol.TLS,
  'kubernetes.io/h2c': AppProtocol.HTTP2,
};

/** By appProtocol, else by the port's name: `<protocol>` or `<protocol>-<suffix>`. */
export function appProtocolOf(port: ServicePort): istio.workload.AppProtocol {
  const declared = port.appProtocol.toLowerCase() || port.name.split('-')[0]!;
  return BY_NAME[declared] ?? AppProtocol.UNKNOWN;
}
