export { type DnsPodReport, DnsProxy, type DnsProxyDeps, type DnsProxyOptions } from './dns-proxy.js';
export { DnsError, type DnsErrorCode } from './types.js';
