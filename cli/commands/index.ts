import type { Command } from '../command.js';
import { authzExplain } from './authz.js';
import { bpf } from './bpf.js';
import { cert } from './cert.js';
import { connections } from './connections.js';
import { doctor } from './doctor.js';
import { log } from './log.js';
import { pods } from './pods.js';
import { nodeRelease, token, validate } from './programs.js';
import { proxyConfig } from './proxy-config.js';
import { status } from './status.js';

/** In the order of the help. */
export const commands: readonly Command[] = [
  status,
  pods,
  connections,
  proxyConfig,
  cert,
  authzExplain,
  validate,
  token,
  log,
  bpf,
  doctor,
  nodeRelease,
];
