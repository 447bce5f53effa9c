export { createLog, LOG_LEVELS, type Log, type LogLevel, type LogOptions } from './log.js';
