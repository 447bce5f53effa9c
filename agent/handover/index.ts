export { openRunFolder } from './run-folder.js';
export { HandoverServer, type HandoverServerOptions } from './server.js';
export { closeSockets, hasPredecessor, type Takeover, type TakeoverOptions, takeOver } from './takeover.js';
export type * from './types.js';
export { HandoverError } from './types.js';
