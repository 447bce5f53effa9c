/** Pinned links: ours are adopted, an older version's taken over. */
import { unlinkSync } from 'node:fs';
import type { Bpf, BpfLink, BpfProgram } from '../../native/bpf/index.js';

/** The link pinned at `path` if it is attached to `target`; one that is not is taken away. */
export function adoptLink(bpf: Bpf, path: string, target: bigint): BpfLink | null {
  const link = bpf.openPinnedLink(path);
  if (link === null) return null;
  const attachedTo = link.info().target;
  if (attachedTo === target) return link;
  if (attachedTo !== 0n) link.detach();
  link.close();
  unlinkSync(path);
  return null;
}

/**
 * A link that an older version has pinned gets a program of ours in one step, and is pinned as ours: there is no moment without a program. False:
 * there is none at `target`.
 */
export function takeOver(
  bpf: Bpf,
  path: string,
  olderPaths: readonly string[],
  target: bigint,
  program: BpfProgram,
): boolean {
  for (const older of olderPaths) {
    using link = adoptLink(bpf, older, target);
    if (link === null) continue;
    link.updateProgram(program);
    link.pin(path);
    unlinkSync(older);
    return true;
  }
  return false;
}

export function pinNew(path: string, link: BpfLink): BpfLink {
  try {
    link.pin(path);
    return link;
  } catch (error) {
    link.close();
    throw error;
  }
}
