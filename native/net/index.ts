export { cgroupId, cgroupLevel, cgroupRoot } from './cgroup.js';
export { type ListenOptions, Net, NetworkNamespace } from './netns.js';
