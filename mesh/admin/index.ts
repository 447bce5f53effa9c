export { type AdminServers, startAdmin } from './admin.js';
export type { AdminCommand, AdminDeps, AdminOptions, MetricsText } from './types.js';
