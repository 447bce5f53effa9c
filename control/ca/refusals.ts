import { status } from '@grpc/grpc-js';
import type { RefusalReason } from './types.js';

/** Not the caller's fault, and over soon. */
const PASSING: ReadonlySet<RefusalReason> = new Set(['review-failed', 'review-busy', 'signer-failed']);

/** gRPC status of a refusal. */
export function codeOfRefusal(reason: RefusalReason): status {
  if (reason === 'csr-invalid') return status.INVALID_ARGUMENT;
  return PASSING.has(reason) ? status.UNAVAILABLE : status.UNAUTHENTICATED;
}
