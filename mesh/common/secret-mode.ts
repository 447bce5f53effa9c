import { statSync } from 'node:fs';

/**
 * Why the mode of a secret's file is not acceptable, or null. Everybody's access is refused; a group's is not, as a projected token or a mounted
 * Secret may belong to the pod's fsGroup. A file that is not there is no concern of this.
 */
export function worldAccessTo(file: string): string | null {
  const mode = statSync(file, { throwIfNoEntry: false })?.mode ?? 0;
  if ((mode & 0o007) === 0) return null;
  return `may be read or written by everybody (mode ${(mode & 0o777).toString(8)}); chmod 640 or 600 it`;
}
