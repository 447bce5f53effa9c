/** In a policy, the mesh's own trust domain, whatever its name. */
const POINTER = 'cluster.local';

/**
 * The same patterns for every name that the mesh's trust domain has or had: what is written of one of `trustDomains` (or of `cluster.local`)
 * holds for all, so that identities of both sides of a migration match. A pattern that leaves the trust domain open is itself.
 */
export function forAllTrustDomains(
  patterns: readonly string[],
  trustDomains: readonly string[],
): readonly string[] {
  const expanded = patterns.flatMap((pattern) => {
    const slash = pattern.indexOf('/');
    const written = slash < 0 ? pattern : pattern.slice(0, slash);
    if (written !== POINTER && !trustDomains.includes(written)) return [pattern];
    return trustDomains.map((trustDomain) => trustDomain + pattern.slice(written.length));
  });
  return [...new Set(expanded)];
}
