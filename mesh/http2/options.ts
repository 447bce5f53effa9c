import { Http2Error } from './errors.js';
import { DEFAULT_SESSION_LIMITS, type SessionLimits } from './session-limits.js';
import type { SessionOptions } from './types.js';
import {
  DEFAULT_HEADER_TABLE_BYTES,
  DEFAULT_WINDOW_BYTES,
  MAX_MAX_FRAME_BYTES,
  MAX_WINDOW_BYTES,
  MIN_MAX_FRAME_BYTES,
} from './wire/frame.js';

const KIB = 1024;
const MIB = 1024 * 1024;

/** `SessionOptions` with every default filled in. */
export type ResolvedOptions = Required<Omit<SessionOptions, 'limits'>> & { readonly limits: SessionLimits };

/** Fills in defaults (hbone-and-wds.md 1.5) and checks ranges. Throws `INVALID_OPTION`. */
export function resolveOptions(options: SessionOptions): ResolvedOptions {
  const resolved: ResolvedOptions = {
    role: options.role,
    initialStreamWindowBytes: options.initialStreamWindowBytes ?? DEFAULT_WINDOW_BYTES,
    maxStreamWindowBytes: options.maxStreamWindowBytes ?? 4 * MIB,
    connectionWindowBytes: options.connectionWindowBytes ?? 16 * MIB,
    maxFrameBytes: options.maxFrameBytes ?? MIB,
    maxConcurrentStreams: options.maxConcurrentStreams ?? 200,
    maxHeaderListBytes: options.maxHeaderListBytes ?? (options.role === 'server' ? 64 * KIB : 16 * KIB),
    headerTableBytes: options.headerTableBytes ?? DEFAULT_HEADER_TABLE_BYTES,
    maxSendFrameBytes: options.maxSendFrameBytes ?? 64 * KIB,
    allowExtendedConnect: options.allowExtendedConnect ?? false,
    limits: { ...DEFAULT_SESSION_LIMITS, ...options.limits },
  };
  // below 64 KiB the connection's window could only be reached by sending less than the protocol's initial credit
  inRange(resolved, 'connectionWindowBytes', DEFAULT_WINDOW_BYTES, MAX_WINDOW_BYTES);
  inRange(resolved, 'initialStreamWindowBytes', 1, MAX_WINDOW_BYTES);
  inRange(resolved, 'maxStreamWindowBytes', 1, MAX_WINDOW_BYTES);
  inRange(resolved, 'maxFrameBytes', MIN_MAX_FRAME_BYTES, MAX_MAX_FRAME_BYTES);
  inRange(resolved, 'maxConcurrentStreams', 0, 0xffffffff);
  inRange(resolved, 'maxHeaderListBytes', 0, 0xffffffff);
  inRange(resolved, 'headerTableBytes', 0, MIB);
  inRange(resolved, 'maxSendFrameBytes', 1, MAX_MAX_FRAME_BYTES);
  return resolved;
}

type NumericOption = Exclude<keyof ResolvedOptions, 'role' | 'limits' | 'allowExtendedConnect'>;

function inRange(options: ResolvedOptions, name: NumericOption, least: number, most: number): void {
  const value = options[name];
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new Http2Error('INVALID_OPTION', `${name} is ${value}, not an integer from ${least} to ${most}`);
}
