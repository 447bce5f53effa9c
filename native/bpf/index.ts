export * from '../abi.js';
export { Bpf, type TypeLayout } from './bpf.js';
export { BpfLink, type BpfLinkInfo, BpfProgram, type BpfProgramInfo } from './link.js';
export { BpfMap, type BpfMapInfo, type UpdateMode } from './map.js';
export { BpfObject, type LoadOptions, VerifierError } from './object.js';
export type { KernelFeature } from './probe.js';
