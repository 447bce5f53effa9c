export * from './access-log.js';
export * from './cell-table.js';
export * from './connections.js';
export * from './exposition.js';
export { TCP_LABEL_NAMES } from './labels.js';
export * from './process-metrics.js';
export * from './tcp-metrics.js';
export * from './types.js';
export * from './xds-metrics.js';
