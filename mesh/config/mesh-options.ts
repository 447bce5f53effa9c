import { option } from './kinds.js';

/** What every program of one mesh must be told alike. */
export const meshOptions = {
  trustDomain: option.text({
    help: 'Trust domain of all identities.',
    fallback: 'cluster.local',
    check: checkTrustDomain,
  }),
  trustDomainAliases: option.list({
    help: 'Trust domains that stand for it, while the mesh goes over from one to another: their identities are issued and let in, and policies that name one hold for all.',
    fallback: [],
    check: checkTrustDomain,
  }),
  clusterDomain: option.text({
    help: 'DNS domain of the cluster: services are named NAME.NAMESPACE.svc.DOMAIN.',
    fallback: 'cluster.local',
    check: (text) => (DOMAIN.test(text) ? null : `must be a DNS name in lower case, not '${text}'`),
  }),
  clusterId: option.text({ help: 'Name of this cluster.', fallback: 'Kubernetes' }),
  network: option.text({
    help: 'Network of whatever does not say another; none: there is but one.',
    fallback: '',
  }),
};

const DOMAIN = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;

/** As in SPIFFE ids: one that is written otherwise would match nobody. */
function checkTrustDomain(text: string): string | null {
  return /^[a-z0-9._-]{1,255}$/.test(text)
    ? null
    : `must be lower-case letters, digits, . _ -, not '${text}'`;
}
