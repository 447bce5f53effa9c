import { istio } from '../../mesh/proto/index.js';
import type { Protocol, Service, ServicePort } from '../model/index.js';

const { AppProtocol } = istio.workload;

/** The mesh carries TCP only. */
export function tcpPorts(service: Service): readonly ServicePort[] {
  return service.ports.filter(isTcp);
}

export function isTcp({ protocol }: { readonly protocol: Protocol }): boolean {
  return protocol === 'TCP';
}

/** Where a workload serves the ports. A named target port that it does not have is left out: that port has no endpoint there. */
export function portsAt(
  ports: readonly ServicePort[],
  portOf: (name: string) => number | null,
): istio.workload.Port.$Properties[] {
  return ports.flatMap(({ port, targetPort }) => {
    const number = typeof targetPort === 'number' ? targetPort : portOf(targetPort);
    return number === null ? [] : [{ servicePort: port, targetPort: number }];
  });
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

/** By what is declared, else by the port's name: `<protocol>` or `<protocol>-<suffix>`. */
export function appProtocolOf(declared: string, portName: string): istio.workload.AppProtocol {
  return BY_NAME[declared.toLowerCase() || portName.split('-')[0]!] ?? AppProtocol.UNKNOWN;
}
