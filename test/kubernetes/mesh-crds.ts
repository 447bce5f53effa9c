/** The mesh's kinds, as little of them as tests of the controller need: the chart's own definitions are tested with the chart. */

const CONDITION = {
  type: 'object',
  required: ['type', 'status'],
  properties: {
    type: { type: 'string' },
    status: { type: 'string' },
    reason: { type: 'string' },
    message: { type: 'string' },
    observedGeneration: { type: 'integer' },
    lastTransitionTime: { type: 'string', format: 'date-time' },
  },
};
const MAP = { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] };

const KINDS: Readonly<Record<string, readonly string[]>> = {
  'networking.istio.io': ['ServiceEntry', 'WorkloadEntry', 'DestinationRule', 'Sidecar'],
  'security.istio.io': ['AuthorizationPolicy', 'PeerAuthentication'],
  'telemetry.istio.io': ['Telemetry'],
};

/** Definitions of all kinds; those of `atomicKinds` take conditions for one value, as Istio's do. */
export function meshCrds(atomicKinds: readonly string[] = []): object[] {
  return Object.entries(KINDS).flatMap(([group, kinds]) =>
    kinds.map((kind) => crd(group, kind, atomicKinds.includes(kind))),
  );
}

function crd(group: string, kind: string, isAtomic: boolean): object {
  const singular = kind.toLowerCase();
  const plural = singular.endsWith('y') ? `${singular.slice(0, -1)}ies` : `${singular}s`;
  const conditions = { type: 'array', items: CONDITION, ...(isAtomic ? {} : MAP) };
  const openAPIV3Schema = {
    type: 'object',
    properties: {
      spec: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
      status: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true, properties: { conditions } },
    },
  };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      names: { kind, plural, singular, listKind: `${kind}List` },
      scope: 'Namespaced',
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: { openAPIV3Schema },
          subresources: { status: {} },
        },
      ],
    },
  };
}
