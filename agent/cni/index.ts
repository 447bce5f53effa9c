export { CniInstaller, type CniInstallerOptions, cniPlugin } from './installer.js';
