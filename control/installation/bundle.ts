import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readDocuments } from '../../mesh/manifests/index.js';

/** A CustomResourceDefinition as it is in a file. */
export interface CrdManifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: object;
}

/** Where the sources have them, seen from dist/. */
export function crdFolder(): string {
  return fileURLToPath(new URL('../../../control/installation/crds/', import.meta.url));
}

/** All CRDs of the mesh, in the order of their names. Throws where a file holds anything else. */
export function loadCrds(folder: string = crdFolder()): readonly CrdManifest[] {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.yaml'),
  );
  const crds = files.flatMap((name) => {
    const { documents, problems } = readDocuments(readFileSync(join(folder, name), 'utf8'), 'yaml');
    const [problem] = problems;
    if (problem !== undefined) throw new Error(`${name}:${problem.line}: ${problem.reason}`);
    return documents.map(({ value }) => checked(value, name));
  });
  return crds.sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
}

function checked(value: unknown, file: string): CrdManifest {
  const crd = value as CrdManifest;
  if (crd.kind !== 'CustomResourceDefinition') throw new Error(`${file}: not a CustomResourceDefinition`);
  return crd;
}
