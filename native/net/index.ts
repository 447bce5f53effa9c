export { cgroupId, cgroupLevel, cgroupRoot } from './cgroup.js';
export { SocketDiag, type TcpSocket } from './diag.js';
export { type ListenOptions, Net, NetworkNamespace } from './netns.js';
export { connectPass, PassChannel, type Passed, PassListener, type PeerProcess } from './pass.js';
