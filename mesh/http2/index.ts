export { Http2Error, type Http2ErrorCode } from './errors.js';
export { createSession } from './session.js';
export { DEFAULT_SESSION_LIMITS, type SessionLimits } from './session-limits.js';
export * from './types.js';
