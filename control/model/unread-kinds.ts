import { closest } from '../../mesh/common/closest.js';
import { groupOf, type Remark } from '../../mesh/manifests/index.js';

/** What follows of kinds of a mesh that are not read: by group, then by kind; `` is every other kind of the group. */
const EFFECTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'networking.istio.io': {
    VirtualService: 'its routes are not in force: they need a waypoint',
    Gateway: 'no gateway is made of it',
    WorkloadGroup: 'no WorkloadEntry is made of it',
    EnvoyFilter: 'ignored: there is no Envoy',
    ProxyConfig: 'ignored: there is no Envoy',
  },
  'gateway.networking.k8s.io': {
    Gateway: 'no gateway is made of it',
    GatewayClass: 'no gateway is made of it',
    HTTPRoute: 'its routes are not in force: they need a waypoint',
    GRPCRoute: 'its routes are not in force: they need a waypoint',
  },
  'extensions.istio.io': { WasmPlugin: 'ignored: there is no Envoy' },
  'telemetry.istio.io': {},
  'install.istio.io': {},
};

/** Groups whose every kind says who may do what: not enforced, it is a problem. */
const SECURITY_GROUPS = [
  'security.istio.io',
  'authentication.istio.io',
  'rbac.istio.io',
  'config.istio.io',
  'policy.linkerd.io',
];

/**
 * What is to be known of an object that is not read; null: nothing, it is none of a mesh's business (a Deployment, a ConfigMap). One that was surely
 * meant to be read, or that would restrict somebody, is a problem. `read`: `<apiVersion> <kind>` of what is read, the preferred version first.
 */
export function remarkOnUnread(apiVersion: string, kind: string, read: readonly string[]): Remark | null {
  const group = groupOf(apiVersion);
  const meant = meantBy(group, kind, read);
  if (meant !== null) {
    const field = meant.endsWith(` ${kind}`) ? 'apiVersion' : 'kind';
    const effect = 'nothing of it is in force';
    return {
      path: [field],
      reason: `${apiVersion} ${kind} is not read: did you mean ${meant}?`,
      effect,
      isProblem: true,
    };
  }
  const reason = `${apiVersion} ${kind} is not read here`;
  if (SECURITY_GROUPS.includes(group))
    return { path: ['kind'], reason, effect: `${lossOf(kind)} is not enforced`, isProblem: true };
  const effects = EFFECTS[group];
  if (effects === undefined) return null;
  const effect = Object.hasOwn(effects, kind) ? effects[kind]! : 'nothing of it is in force';
  return { path: ['kind'], reason, effect, isProblem: false };
}

function lossOf(kind: string): string {
  return kind === 'RequestAuthentication' ? 'what it asks of tokens (at a waypoint)' : 'what it demands';
}

/** `<apiVersion> <kind>` that was most likely meant; null: it is another kind. */
function meantBy(group: string, kind: string, read: readonly string[]): string | null {
  const ofKind = (wanted: string, isWanted: (group: string) => boolean) =>
    read.find((one) => {
      const [apiVersion = '', name] = one.split(' ');
      return name === wanted && isWanted(groupOf(apiVersion));
    });
  // The mesh's own kinds in whatever group; Kubernetes' own have names that others have, too (Knative's Service).
  const exact = ofKind(kind, (its) => its.endsWith('.istio.io') || !group.includes('.'));
  if (exact !== undefined) return exact;
  const isNear = (its: string) => its === group || (isOfMesh(its) && isOfMesh(group));
  const names = read.filter((one) => isNear(groupOf(one.split(' ')[0]!))).map((one) => one.split(' ')[1]!);
  const near = closest(kind, new Set(names));
  return near === null ? null : (ofKind(near, isNear) ?? null);
}

function isOfMesh(group: string): boolean {
  return group.endsWith('.istio.io');
}
