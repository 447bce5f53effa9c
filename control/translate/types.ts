import { MODEL_DEFAULTS } from '../model/index.js';

/** A resource before encoding: what one model object becomes. */
export interface Resource<Message> {
  /** Resource name: a workload's uid, a service's `ns/hostname`. */
  readonly name: string;
  /** `network/ip` of each address: names that on-demand clients may ask by (hbone-and-wds.md 3.2, 3.4). */
  readonly aliases: readonly string[];
  /** Names of other resources whose subscribers get this one, too: the services of a workload. */
  readonly follows: readonly string[];
  readonly message: Message;
}

export interface TranslateOptions {
  readonly clusterId: string;
  /** Network of all pods and VIPs; '' where there is only one. */
  readonly network: string;
  readonly trustDomain: string;
  /** Names that the trust domain had: in policies, what holds for one holds for all. */
  readonly trustDomainAliases: readonly string[];
  /** Its policies are the whole mesh's. */
  readonly rootNamespace: string;
  /** DNS domain of services: `<name>.<namespace>.svc.<domain>`. */
  readonly clusterDomain: string;
  /** What pods may reach outside the mesh where no Sidecar says. */
  readonly outboundTrafficPolicy: 'allow-any' | 'registry-only';
}

export const TRANSLATE_DEFAULTS: TranslateOptions = {
  clusterId: 'Kubernetes',
  network: '',
  trustDomain: 'cluster.local',
  trustDomainAliases: [],
  rootNamespace: MODEL_DEFAULTS.rootNamespace,
  clusterDomain: 'cluster.local',
  outboundTrafficPolicy: 'allow-any',
};
