import { option } from '../mesh/config/index.js';
import { API_CLIENT_DEFAULTS, ApiClient, openAccess } from '../mesh/kube/index.js';
import type { Requests, Say } from './installation/index.js';

/** Of both of the chart's hooks. */
export const installationOptions = {
  namespace: option.text({ help: "The release's namespace.", fallback: 'culvert-system' }),
  kubeconfig: option.text({
    help: 'How to reach the API server; none: as the pod that we are in.',
    fallback: '',
    metavar: 'FILE',
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
