export * from './parts.js';
export * from './store.js';
export * from './types.js';
