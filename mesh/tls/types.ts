import type { TlsContextId } from '../io/types.js';

/** Hears which TLS context an identity has now; called synchronously. Workers are told through it. */
export interface ContextListener {
  /** `context` replaces any earlier one for new connections; null: the identity may not be used any more. */
  onContext(identity: string, context: TlsContextId | null): void;
}
