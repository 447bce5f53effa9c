export {
  type ApplicationDial,
  ApplicationDialer,
  type ApplicationDialerOptions,
  type DialledPod,
} from './application-dialer.js';
export {
  Capture,
  type CaptureDeps,
  type CaptureOptions,
  type CaptureStatus,
  captureDefaults,
  type PodStatus,
} from './capture.js';
export { type CleanOptions, clean } from './clean.js';
export type { PodState } from './enrolment.js';
export { CaptureError, type CaptureErrorCode } from './errors.js';
export { FilesPodSource, type FilesPodSourceOptions } from './files-pod-source.js';
export type { ManifestProblem } from './manifest.js';
export { OriginalDestinationMap } from './original-destinations.js';
export type {
  CapturedPod,
  CaptureHandles,
  CaptureListener,
  LocalPod,
  OriginalDestinations,
  PodSource,
} from './types.js';
