export { limitationsOf } from './limitations.js';
export { entryResourceName } from './names.js';
export { ownLimitationsOf } from './own-limitations.js';
export { strictPolicy } from './policies/peer-authentication.js';
export { type AuthorizationUpdates, translateAuthorizations } from './policies/policies.js';
export { entryNeedsVip } from './service.js';
export { AddressTranslator, type AddressTranslatorDeps, type AddressUpdates } from './translator.js';
export { type Resource, TRANSLATE_DEFAULTS, type TranslateOptions } from './types.js';
export { STATUS_VIPS, VipPool, type Vips } from './vip-pool.js';
