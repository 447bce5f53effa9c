import { hostname } from 'node:os';
import { meshOptions, type OptionValues, option } from '../mesh/config/index.js';
import { LOG_LEVELS } from '../mesh/log/index.js';
import type { OutlierDetection } from '../mesh/store/index.js';
import type { CniInstallerOptions } from './cni/index.js';

/** Options of the node agent: `--kebab-case`, or CULVERT_KEBAB_CASE in the environment. */
export const agentOptions = {
  node: option.text({ help: 'Name of this node, as in spec.nodeName of its pods.', fallback: hostname() }),
  source: option.choice({
    help: 'Where the pods of this node are named: in a folder of manifests, or by a Kubernetes API server.',
    fallback: 'files',
    of: ['files', 'kubernetes'] as const,
  }),
  manifests: option.text({
    help: 'Folder of manifests that names the pods of this node (source `files`).',
    fallback: '',
    metavar: 'DIR',
  }),
  kubeconfig: option.text({
    help: 'How to reach the API server (source `kubernetes`); none: as the pod that we are in.',
    fallback: '',
    metavar: 'FILE',
  }),
  podNamespace: option.text({
    help: "Namespace of the agent's own pod (source `kubernetes`): the uninstall marker is looked for there.",
    fallback: 'culvert-system',
    env: 'POD_NAMESPACE',
  }),
  controller: option.text({
    help: "The controller's gRPC endpoint.",
    metavar: 'HOST:PORT',
    check: (text) => (/^.+:\d+$/.test(text) ? null : 'must be host:port'),
  }),
  controllerRoot: option.text({ help: 'PEM file of the roots that sign the controller.', metavar: 'FILE' }),
  controllerName: option.text({
    help: 'Name to expect in the controller certificate, where it is not the host of --controller.',
    fallback: '',
  }),
  token: option.text({ help: 'File with the join token of this node.', metavar: 'FILE' }),
  crl: option.text({
    help: 'File of certificate revocation lists (PEM, or one in DER), watched; none: nothing is revoked.',
    fallback: '',
    metavar: 'FILE',
  }),
  ...meshOptions,
  workers: option.integer({ help: 'Data path threads.', fallback: 1, min: 1, max: 64 }),
  cgroupRoot: option.text({
    help: 'Where cgroup v2 is mounted; empty: found.',
    fallback: '',
    metavar: 'DIR',
  }),
  podsCgroup: option.text({
    help: 'Parent of all pod cgroups, below the cgroup root or absolute; empty: kubepods or kubepods.slice.',
    fallback: '',
    metavar: 'DIR',
  }),
  hostNetns: option.text({
    help: "A file that is the host's network namespace; empty: found (that of process 1).",
    fallback: '',
    metavar: 'FILE',
  }),
  kubeletCgroup: option.text({
    help: "kubelet's cgroup, below the cgroup root or absolute: its probes reach applications directly; none: there is no kubelet; empty: found by its process.",
    fallback: '',
    metavar: 'DIR',
  }),
  keepOlderConnections: option.flag({
    help: 'Where no agent was before, connections of enrolled pods that are older go on, in clear text.',
  }),
  bpffs: option.text({
    help: 'Folder for pinned programs and maps; a bpffs is mounted there where none is.',
    fallback: '/sys/fs/bpf/culvert',
    metavar: 'DIR',
  }),
  runDir: option.text({
    help: 'Folder, root only, where the next agent of this node finds this one to take over from it.',
    fallback: '/run/culvert',
    metavar: 'DIR',
  }),
  cniBinDir: option.text({
    help: "Where the container runtime has its CNI plugins; with --cni-conf-dir a chained plugin is kept there that holds back pods' starts while no hook is in place. Empty: none.",
    fallback: '',
    metavar: 'DIR',
  }),
  cniConfDir: option.text({
    help: "Where the container runtime's network configuration is.",
    fallback: '',
    metavar: 'DIR',
  }),
  cniExcludedNamespaces: option.list({
    help: "Pods of these always come up; the agent's own namespace is one of them.",
    fallback: ['kube-system'],
  }),
  metricsListen: option.socketAddress({ help: 'Metrics.', fallback: { address: '0.0.0.0', port: 15020 } }),
  readinessListen: option.socketAddress({
    help: 'Readiness.',
    fallback: { address: '0.0.0.0', port: 15021 },
  }),
  adminListen: option.socketAddress({
    help: 'Admin, localhost only.',
    fallback: { address: '127.0.0.1', port: 15000 },
  }),
  drain: option.duration({
    help: 'How long open connections may go on after SIGTERM, or after the next agent has taken over. Quiet ones end at half of it.',
    fallback: 30_000,
    minMs: 0,
    maxMs: 24 * 3_600_000,
  }),
  afterTakeover: option.choice({
    help: 'When the next agent has taken over and the last connection has ended: exit, or wait for SIGTERM where whoever starts us would start us again (a DaemonSet).',
    fallback: 'exit',
    of: ['exit', 'wait'] as const,
  }),
  outlierFailures: option.integer({
    help: 'Failed connects in a row that leave an endpoint out for a while, where a service does not say; 0: never.',
    fallback: 5,
    min: 0,
    max: 1_000,
  }),
  outlierEjection: option.duration({
    help: 'For how long the first time; the n-th time n times as long, at most 5 minutes.',
    fallback: 30_000,
    minMs: 100,
    maxMs: 300_000,
  }),
  outlierMaxPercent: option.integer({
    help: "At most this share of a service's endpoints is left out at once (but always one may be).",
    fallback: 50,
    min: 0,
    max: 100,
  }),
  logLevel: option.choice({ help: 'Least severe level that is logged.', fallback: 'info', of: LOG_LEVELS }),
  accessLog: option.choice({
    help: 'One line per connection, when it ends.',
    fallback: 'json',
    of: ['json', 'text', 'off'],
  }),
} as const;

export type AgentOptions = OptionValues<typeof agentOptions>;

/** Rules over several options. */
export function checkOptions(options: AgentOptions): readonly string[] {
  const needsFolder = options.source === 'files' && options.manifests === '';
  const problems = needsFolder ? ['--manifests is required, or --source kubernetes'] : [];
  if ((options.cniBinDir === '') !== (options.cniConfDir === ''))
    problems.push('--cni-bin-dir and --cni-conf-dir go together');
  return problems;
}

/** Of the CNI plugin; null: there is to be none. */
export function cniOf(options: AgentOptions): CniInstallerOptions | null {
  const { cniBinDir: binDir, cniConfDir: confDir, bpffs: pins, podNamespace } = options;
  if (confDir === '') return null;
  const excludedNamespaces = [...new Set([podNamespace, ...options.cniExcludedNamespaces])];
  return { binDir, confDir, pins, excludedNamespaces };
}

/** Where the controller is, and who we are to it. */
export function controllerOf(options: AgentOptions) {
  return {
    address: options.controller,
    rootCertificateFile: options.controllerRoot,
    tokenFile: options.token,
    verifyName: options.controllerName || null,
    clusterId: options.clusterId,
  };
}

/** What leaves endpoints out where a service does not say. */
export function outlierDetectionOf(options: AgentOptions): OutlierDetection {
  return {
    consecutiveConnectFailures: options.outlierFailures,
    baseEjectionMs: options.outlierEjection,
    maxEjectionPercent: options.outlierMaxPercent,
  };
}
