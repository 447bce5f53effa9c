import { join } from 'node:path';
import type { LabNode } from '../lab/index.js';
import { addressPlan } from '../lab/network.js';
import type { KubernetesBinaries } from './binaries.js';
import { type CertificateRequest, ClusterCa, writeKubeconfig } from './certificates.js';

export type Component = 'etcd' | 'apiServer' | 'controllerManager' | 'scheduler';

/** Addresses of Services; the first of each is `kubernetes`. */
export const SERVICE_RANGES = ['10.96.0.0/16', 'fd00:96::/112'] as const;

/** DNS suffix of the cluster. */
export const CLUSTER_DOMAIN = 'cluster.local';

export interface CommandInputs {
  readonly binaries: KubernetesBinaries;
  readonly ca: ClusterCa;
  readonly machine: LabNode;
  /** Of the API server, on the bridge. */
  readonly url: string;
  readonly flags: Partial<Readonly<Record<Component, readonly string[]>>>;
}

/** Command lines of the components, and the keys and files they name. */
export function commandsOf(inputs: CommandInputs): Readonly<Record<Component, readonly string[]>> {
  const serviceAccounts = inputs.ca.keyPair('service-accounts');
  const flags = {
    etcd: etcdFlags(inputs),
    apiServer: apiServerFlags(inputs, serviceAccounts),
    controllerManager: controllerManagerFlags(inputs, serviceAccounts.keyFile),
    scheduler: schedulerFlags(inputs),
  };
  const command = (component: Component): readonly string[] => [
    inputs.binaries[component],
    ...Object.entries(flags[component]).map(([name, value]) => `--${name}=${value}`),
    ...(inputs.flags[component] ?? []),
  ];
  return {
    etcd: command('etcd'),
    apiServer: command('apiServer'),
    controllerManager: command('controllerManager'),
    scheduler: command('scheduler'),
  };
}

type Flags = Readonly<Record<string, string>>;

function etcdFlags({ machine }: CommandInputs): Flags {
  const [clients, peers] = ['http://127.0.0.1:2379', 'http://127.0.0.1:2380'];
  return {
    'data-dir': join(machine.stateDir, 'etcd'),
    'listen-client-urls': clients,
    'advertise-client-urls': clients,
    'listen-peer-urls': peers,
    'initial-advertise-peer-urls': peers,
    'initial-cluster': `default=${peers}`,
    // What is here may be lost with the machine.
    'unsafe-no-fsync': 'true',
    'log-level': 'warn',
  };
}

function apiServerFlags(
  { ca, machine, url }: CommandInputs,
  serviceAccounts: { readonly keyFile: string; readonly publicKeyFile: string },
): Flags {
  const serving = ca.issue('api-server', { user: 'kube-apiserver', names: servingNames(machine) });
  const kubelets = ca.issue('api-server-to-kubelets', {
    user: 'kube-apiserver-kubelet-client',
    groups: ['system:masters'],
  });
  const front = new ClusterCa(join(ca.folder, 'front-proxy'));
  const proxy = front.issue('client', { user: 'front-proxy-client' });
  return {
    'etcd-servers': 'http://127.0.0.1:2379',
    'bind-address': '0.0.0.0',
    'secure-port': new URL(url).port,
    'advertise-address': machine.ip,
    'client-ca-file': ca.certificateFile,
    'tls-cert-file': serving.certificateFile,
    'tls-private-key-file': serving.keyFile,
    'cert-dir': ca.folder,
    'service-cluster-ip-range': SERVICE_RANGES.join(','),
    'service-account-issuer': `https://kubernetes.default.svc.${CLUSTER_DOMAIN}`,
    'service-account-key-file': serviceAccounts.publicKeyFile,
    'service-account-signing-key-file': serviceAccounts.keyFile,
    'authorization-mode': 'Node,RBAC',
    'enable-admission-plugins': 'NodeRestriction',
    'allow-privileged': 'true',
    'kubelet-client-certificate': kubelets.certificateFile,
    'kubelet-client-key': kubelets.keyFile,
    'kubelet-certificate-authority': ca.certificateFile,
    'kubelet-preferred-address-types': 'InternalIP',
    // No kube-proxy runs beside it: webhooks are dialled at their endpoints.
    'enable-aggregator-routing': 'true',
    'requestheader-client-ca-file': front.certificateFile,
    'requestheader-allowed-names': 'front-proxy-client',
    'requestheader-username-headers': 'X-Remote-User',
    'requestheader-group-headers': 'X-Remote-Group',
    'requestheader-extra-headers-prefix': 'X-Remote-Extra-',
    'proxy-client-cert-file': proxy.certificateFile,
    'proxy-client-key-file': proxy.keyFile,
  };
}

/** All names and addresses the API server is reached at. */
function servingNames(machine: LabNode): readonly string[] {
  const service = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc'];
  const names = [...service, `kubernetes.default.svc.${CLUSTER_DOMAIN}`, 'localhost'];
  const addresses = ['127.0.0.1', machine.ip, machine.ip6, addressPlan.vip4(1), addressPlan.vip6(1)];
  return [...names.map((name) => `DNS:${name}`), ...addresses.map((address) => `IP:${address}`)];
}

function controllerManagerFlags(inputs: CommandInputs, serviceAccountKey: string): Flags {
  const { ca } = inputs;
  return {
    ...clientFlags(inputs, 'controller-manager', { user: 'system:kube-controller-manager' }),
    'use-service-account-credentials': 'true',
    'service-account-private-key-file': serviceAccountKey,
    'root-ca-file': ca.certificateFile,
    'cluster-signing-cert-file': ca.certificateFile,
    'cluster-signing-key-file': ca.keyFile,
    'service-cluster-ip-range': SERVICE_RANGES.join(','),
    'kube-api-qps': '100',
    'kube-api-burst': '200',
  };
}

function schedulerFlags(inputs: CommandInputs): Flags {
  return clientFlags(inputs, 'scheduler', { user: 'system:kube-scheduler' });
}

function clientFlags({ ca, url }: CommandInputs, name: string, request: CertificateRequest): Flags {
  const path = join(ca.folder, `${name}.kubeconfig`);
  const kubeconfig = writeKubeconfig(path, url, ca.certificateFile, ca.issue(name, request));
  return {
    kubeconfig,
    'authentication-kubeconfig': kubeconfig,
    'authorization-kubeconfig': kubeconfig,
    'bind-address': '127.0.0.1',
    'cert-dir': ca.folder,
    'leader-elect': 'false',
  };
}
