export * from './certificates.js';
export * from './client.js';
export { type DecodedAddress, decodeAddress } from './decode-address.js';
export { type DecodedAuthorization, decodeAuthorization } from './decode-authorization.js';
export * from './errors.js';
export * from './types.js';
