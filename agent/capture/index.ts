export { FilesPodSource, type FilesPodSourceOptions } from '../pods/index.js';
export {
  Capture,
  type CaptureDeps,
} from './capture.js';
export { type CleanOptions, clean } from './pins.js';
export type { CaptureStatus, LinkStatus, MapStatus, PodStatus, ProgramStatus } from './status.js';
export type {
  CapturedPod,
  CaptureHandles,
  CaptureListener,
  CaptureOptions,
  InheritedPod,
  LocalPod,
  OriginalDestinations,
  PodSource,
  PodState,
} from './types.js';
export { CaptureError, type CaptureErrorCode } from './types.js';
export {
  type ApplicationDial,
  ApplicationDialer,
  type ApplicationDialerOptions,
  type DialledPod,
  OriginalDestinationMap,
} from './worker.js';
