export { type CrdManifest, crdFolder, loadCrds } from './bundle.js';
export { CHECK_DEFAULTS, checkInstallation } from './check.js';
export { CRD_REVISION, INSTALL_DEFAULTS, installCrds, OWNER_LABEL, REVISION_ANNOTATION } from './crds.js';
export type { Requests, Say } from './types.js';
export { MARKER, RELEASED, removeMarker, UNINSTALL_DEFAULTS, uninstall } from './uninstall.js';
