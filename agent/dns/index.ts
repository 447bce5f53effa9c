export { DnsThread, type DnsThreadDeps, type DnsThreadOptions } from './dns-thread.js';
export type { DnsPodReport, DnsReport, DnsWorkerData } from './messages.js';
export { runDnsThread } from './run-dns-thread.js';
export { DnsError, type DnsErrorCode } from './types.js';
