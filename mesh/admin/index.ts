export { type AdminServers, startAdmin } from './admin.js';
export type { AdminDeps, AdminOptions, MetricsText } from './types.js';
