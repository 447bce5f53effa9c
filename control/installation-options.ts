import { option } from '../mesh/config/index.js';
import { API_CLIENT_DEFAULTS, ApiClient, openAccess } from '../mesh/kube/index.js';
import { type Requests, type Say, UNINSTALL_DEFAULTS } from './installation/index.js';

/** Of all of the chart's hooks. */
const common = {
  namespace: option.text({ help: "The release's namespace.", fallback: 'culvert-system' }),
  kubeconfig: option.text({
    help: 'How to reach the API server; none: as the pod that we are in.',
    fallback: '',
    metavar: 'FILE',
  }),
};

export const installOptions = {
  ...common,
  skipCrds: option.flag({ help: 'Leave CRDs to somebody else.' }),
};

export const uninstallOptions = {
  ...common,
  webhooks: option.list({ help: 'Names of our ValidatingWebhookConfigurations.', fallback: [] }),
  agentsTimeout: option.duration({
    help: 'For all agents to let go of their nodes.',
    fallback: UNINSTALL_DEFAULTS.agentsTimeoutMs,
    minMs: 0,
    maxMs: 3_600_000,
  }),
};

export const checkInstallationOptions = {
  ...common,
  controller: option.text({
    help: "The controller's monitoring by its Service.",
    fallback: 'http://culvert-controller.culvert-system.svc:15014',
    metavar: 'URL',
  }),
};

/** @throws KubeError KUBE_ACCESS */
export function openInstallation(options: { readonly kubeconfig: string }): {
  readonly client: Requests;
  readonly say: Say;
} {
  const access = openAccess(options);
  const client = new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'culvert-installation' }, { access });
  return { client, say: (line) => void process.stdout.write(`${line}\n`) };
}
