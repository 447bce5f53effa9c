export { Authorizer, type AuthorizerDeps, type AuthorizerOptions } from './authorizer.js';
export { rejectionText } from './explain.js';
export * from './types.js';
