export { CniInstaller, type CniInstallerOptions, cniPlugin, uninstallPlugin } from './installer.js';
