export {
  TOKEN_REVIEW_DEFAULTS,
  TokenReviewAuthenticator,
  type TokenReviewDeps,
  type TokenReviewOptions,
} from './token-review.js';
export type { AuthnEvents } from './types.js';
