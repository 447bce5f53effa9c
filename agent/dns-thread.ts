import { runDnsThread } from './dns/index.js';

/** The DNS thread's program; started by `wire.ts`. */
runDnsThread();
