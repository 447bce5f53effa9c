import type { WatchedKind } from './types.js';

/** Of `<apiVersion> <kind>`, as decoders are listed: one watch a kind, by the first of its versions that is served. */
export function watchedKindsOf(apiKinds: Iterable<string>): WatchedKind[] {
  const versions = new Map<string, string[]>();
  for (const apiKind of apiKinds) {
    const [apiVersion = '', kind = ''] = apiKind.split(' ');
    versions.set(kind, [...(versions.get(kind) ?? []), apiVersion]);
  }
  return [...versions].map(([kind, apiVersions]) => ({ kind, apiVersions }));
}
