import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { HandoverError } from './types.js';

/** Makes the folder where agents of one node meet. Throws RUN_DIR_UNSAFE where others could pose as one. */
export function openRunFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const { uid, mode } = statSync(path);
  if (uid === process.geteuid!() && (mode & 0o022) === 0) return;
  const reason = `${path} must belong to uid ${process.geteuid!()} and be writable by nobody else`;
  throw new HandoverError('RUN_DIR_UNSAFE', reason, { path, uid, mode: mode & 0o777 });
}

/** Where the agent that serves can be asked. */
export function agentSocket(runDir: string): string {
  return join(runDir, 'agent.sock');
}
