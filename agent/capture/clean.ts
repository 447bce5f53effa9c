/** Removes every trace of capture from a node: at the end of a mesh, before an agent of another abi.h, after tests. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Bpf, type BpfLink } from '../../native/bpf/index.js';
import { NativeError } from '../../native/index.js';
import { isOnBpffs, removeTree } from './pins.js';

export interface CleanOptions {
  readonly bpffsDir: string;
}

/**
 * Detaches all programs pinned below `bpffsDir`, of whatever version, whether their targets live or not, and unlinks everything; unmounts
 * the bpffs if it was mounted at `bpffsDir` itself. Connections of enrolled pods are plain afterwards; stop the agent first. Returns how many
 * links there were.
 */
export function clean(options: CleanOptions, deps: { bpf: Bpf } = { bpf: new Bpf() }): number {
  const { bpffsDir } = options;
  if (!existsSync(bpffsDir)) return 0;
  const links = isOnBpffs(bpffsDir) ? pinnedLinks(deps.bpf, bpffsDir) : [];
  try {
    // Those that refuse and redirect come off first: nothing may be sent to listeners that are no more.
    for (const link of links.sort(byHook)) if (link.info().target !== 0n) link.detach();
  } finally {
    for (const link of links) link.close();
  }
  for (const name of versionsIn(bpffsDir)) removeTree(join(bpffsDir, name));
  if (isMountPoint(bpffsDir)) execFileSync('umount', [bpffsDir]);
  if (readdirSync(bpffsDir).length === 0) rmdirSync(bpffsDir);
  return links.length;
}

function versionsIn(bpffsDir: string): string[] {
  return readdirSync(bpffsDir).filter((name) => name.startsWith('abi-'));
}

function pinnedLinks(bpf: Bpf, folder: string): BpfLink[] {
  const found: BpfLink[] = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...pinnedLinks(bpf, path));
    else found.push(...tryOpenLink(bpf, path));
  }
  return found;
}

/** None: a map, or a link that cannot be opened; unlinking it will end it. */
function tryOpenLink(bpf: Bpf, path: string): BpfLink[] {
  try {
    return [bpf.openPinnedLink(path)].filter((link) => link !== null);
  } catch (error) {
    if (error instanceof NativeError) return [];
    throw error;
  }
}

/** cgroup/connect4, 6 (10, 11) before everything else. */
function byHook(a: BpfLink, b: BpfLink): number {
  return Number(isConnect(b)) - Number(isConnect(a));
}

function isConnect(link: BpfLink): boolean {
  return [10, 11].includes(link.info().attachType);
}

function isMountPoint(path: string): boolean {
  return statSync(path).dev !== statSync(dirname(path)).dev;
}
