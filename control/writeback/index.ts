export type { FindingSummary, WritebackCounts } from './types.js';
export { Writeback, type WritebackDeps, type WritebackOptions } from './writeback.js';
