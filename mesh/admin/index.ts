export { type AdminServers, startAdmin } from './admin.js';
export { jsonReply, serveLoopback } from './loopback.js';
export { type Reply, type Route, type Routes, serveText, type TextServer } from './server.js';
export type { AdminCommand, AdminDeps, AdminOptions, MetricsText } from './types.js';
