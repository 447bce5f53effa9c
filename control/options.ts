import { meshOptions, type OptionValues, option } from '../mesh/config/index.js';
import { LOG_LEVELS } from '../mesh/log/index.js';
import { ISSUER_DEFAULTS } from './ca/index.js';
import { MODEL_DEFAULTS } from './model/index.js';
import { TRANSLATE_DEFAULTS } from './translate/index.js';

export const ENV_PREFIX = 'CULVERT_CONTROLLER_';

const HOUR_MS = 3_600_000;

/** Every option of the controller. */
export const OPTIONS = {
  source: option.choice({
    help: "Where the mesh's objects come from: a folder of manifests, or a Kubernetes API server.",
    fallback: 'files',
    of: ['files', 'kubernetes'] as const,
  }),
  manifests: option.text({
    metavar: 'DIR',
    help: 'Folder of Kubernetes manifests, watched (source `files`).',
    fallback: '',
  }),
  kubeconfig: option.text({
    metavar: 'FILE',
    help: 'How to reach the API server (source `kubernetes`); none: as the pod that we are in.',
    fallback: '',
  }),
  namespace: option.text({
    help: "The controller's own namespace: its Lease, Secrets and ConfigMaps are there (source `kubernetes`).",
    fallback: 'culvert-system',
  }),
  webhook: option.flag({
    help: 'Answer the API server whether objects of the mesh are valid (source `kubernetes`).',
    fallback: false,
  }),
  webhookListen: option.socketAddress({
    help: 'The validating webhook (/validate): HTTPS.',
    fallback: { address: '0.0.0.0', port: 15017 },
  }),
  webhookConfiguration: option.text({
    metavar: 'NAME',
    help: 'ValidatingWebhookConfiguration that is told whom to trust; none: culvert-validation-<namespace>.',
    fallback: '',
  }),
  nodeTaint: option.flag({
    help: 'Keep the taint culvert/agent-not-ready:NoSchedule on nodes that have booted until their agent is ready (source `kubernetes`).',
    fallback: true,
  }),
  statusFile: option.text({
    metavar: 'FILE',
    help: 'Where to write what is wrong with the manifests, JSON; none: files-status.json in the state folder.',
    fallback: '',
  }),
  state: option.text({
    metavar: 'DIR',
    help: 'Folder for root and token keys; made at first start. Secret.',
  }),
  listen: option.socketAddress({
    help: 'xDS and certificates: gRPC over TLS.',
    fallback: { address: '0.0.0.0', port: 15012 },
  }),
  monitoringListen: option.socketAddress({
    help: 'Metrics (/metrics) and readiness (/healthz/ready): HTTP.',
    fallback: { address: '0.0.0.0', port: 15014 },
  }),
  adminListen: option.socketAddress({
    help: 'Status for people on this machine (/status): HTTP, loopback only.',
    fallback: { address: '127.0.0.1', port: 15016 },
  }),
  names: option.list({
    help: "Further DNS names and IP addresses of the server's certificate, besides localhost, the host's name and the addresses it listens on; none: those of Service culvert-controller in --namespace.",
    fallback: [],
  }),
  rootCertificateFile: option.text({
    metavar: 'FILE',
    help: "Where to write the mesh's root for agents, PEM; none: root-cert.pem in the state folder.",
    fallback: '',
  }),
  caFiles: option.text({
    metavar: 'DIR',
    help: "Folder with the CA's certificate, key, chain and roots, watched (ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem, or tls.crt, tls.key, ca.crt); none: a root of our own, in the state folder, or (source `kubernetes`) what Secret cacerts or culvert-ca-secret of --namespace has.",
    fallback: '',
  }),
  caSigner: option.text({
    metavar: 'NAME',
    help: 'Certificates are signed by this signer of the Kubernetes CSR API (certificates.k8s.io); none: by a key that we have.',
    fallback: '',
    check: (text) =>
      text === '' || /^[a-z0-9.-]+\/[a-zA-Z0-9./_-]+$/.test(text) ? null : 'must be domain/path',
  }),
  caRoots: option.text({
    metavar: 'FILE',
    help: "The roots that the signer's certificates lead to, PEM, watched (with --ca-signer).",
    fallback: '',
  }),
  rootOverlap: option.duration({
    help: 'When our own root is rotated: how long the new one is trusted before it signs, and the old one afterwards. Best not below --certificate-lifetime.',
    fallback: 24 * HOUR_MS,
    minMs: 1000,
    maxMs: 365 * 24 * HOUR_MS,
  }),
  ...meshOptions,
  rootNamespace: option.text({
    help: 'Its mesh-wide policies, DestinationRules and Sidecar hold for all namespaces.',
    fallback: MODEL_DEFAULTS.rootNamespace,
  }),
  outboundTrafficPolicy: option.choice({
    help: 'What pods may reach outside the mesh where no Sidecar says.',
    fallback: TRANSLATE_DEFAULTS.outboundTrafficPolicy,
    of: ['allow-any', 'registry-only'] as const,
  }),
  nodeAccounts: option.list({
    help: 'Service accounts of node agents, namespace/name: they may ask for the identities of the pods on their node; none: culvert-agent of --namespace.',
    fallback: [],
    check: (text) =>
      /^[a-z0-9-]+\/[a-z0-9.-]+$/.test(text) ? null : `must be namespace/name, not '${text}'`,
  }),
  certificateLifetime: option.duration({
    help: 'Lifetime of certificates, and the longest that an agent may ask for.',
    fallback: ISSUER_DEFAULTS.maxLifetimeMs,
    minMs: 1000,
    maxMs: 90 * 24 * HOUR_MS,
  }),
  shutdownTimeout: option.duration({
    help: 'At SIGTERM: time for calls that are running.',
    fallback: 3000,
    minMs: 0,
    maxMs: HOUR_MS,
  }),
  logLevel: option.choice({ help: 'How much is logged.', fallback: 'info', of: LOG_LEVELS }),
};

export type ControllerOptions = OptionValues<typeof OPTIONS>;

/** Rules over several options. */
export function checkOptions(options: ControllerOptions): readonly string[] {
  const rules: readonly (readonly [isBroken: boolean, what: string])[] = [
    [
      options.source === 'files' && options.manifests === '',
      '--manifests is required, or --source kubernetes',
    ],
    [options.caSigner !== '' && options.source === 'files', '--ca-signer needs --source kubernetes'],
    [(options.caSigner !== '') !== (options.caRoots !== ''), '--ca-signer and --ca-roots are given together'],
    [options.caSigner !== '' && options.caFiles !== '', '--ca-signer or --ca-files, not both'],
  ];
  return rules.filter(([isBroken]) => isBroken).map(([, what]) => what);
}
