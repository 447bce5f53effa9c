export { Authorizer, type AuthorizerDeps, type AuthorizerOptions } from './authorizer.js';
export { emptyMatch } from './conditions.js';
export { rejectionText } from './explain.js';
export * from './types.js';
