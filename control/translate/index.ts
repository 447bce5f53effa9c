export { type AddressUpdates, translateAddresses } from './translator.js';
export { type Resource, TRANSLATE_DEFAULTS, type TranslateOptions } from './types.js';
