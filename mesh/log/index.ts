export { LineWriter, type LineWriterOptions } from './line-writer.js';
export { createLog, LOG_LEVELS, type Log, type LogLevel, type LogOptions } from './log.js';
