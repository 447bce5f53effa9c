import { type CrdManifest, loadCrds } from '../../control/installation/index.js';

interface Conditions {
  'x-kubernetes-list-type'?: string;
  'x-kubernetes-list-map-keys'?: readonly string[];
}

interface Spec {
  readonly group: string;
  readonly names: { readonly kind: string };
  readonly versions: readonly {
    readonly schema: {
      readonly openAPIV3Schema: {
        readonly properties: {
          readonly status: { readonly properties: { readonly conditions: Conditions } };
        };
      };
    };
  }[];
}

/** The chart's definitions of the kinds that the controller reads; those of `atomicKinds` take conditions for one value, as Istio's own do. */
export function meshCrds(atomicKinds: readonly string[] = []): readonly CrdManifest[] {
  return loadCrds()
    .map((crd) => structuredClone(crd))
    .filter(({ spec }) => (spec as Spec).group.endsWith('.istio.io'))
    .map((crd) => {
      const { names, versions } = crd.spec as Spec;
      if (!atomicKinds.includes(names.kind)) return crd;
      for (const { schema } of versions) {
        const { conditions } = schema.openAPIV3Schema.properties.status.properties;
        delete conditions['x-kubernetes-list-type'];
        delete conditions['x-kubernetes-list-map-keys'];
      }
      return crd;
    });
}
