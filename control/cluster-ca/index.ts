export {
  ROOT_CONFIG_MAPS_DEFAULTS,
  RootConfigMaps,
  type RootConfigMapsDeps,
  type RootConfigMapsOptions,
} from './root-config-maps.js';
export {
  SECRET_AUTHORITY_DEFAULTS,
  SecretAuthority,
  type SecretAuthorityDeps,
  type SecretAuthorityOptions,
} from './secret-authority.js';
export {
  SIGNER_DEFAULTS,
  SignerAuthority,
  type SignerAuthorityDeps,
  type SignerAuthorityOptions,
} from './signer-authority.js';
