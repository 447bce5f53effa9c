export { type ApplicationDial, ApplicationDialer, type ApplicationDialerOptions, type DialledPod } from './application-dialer.js';
export {
  Capture,
  captureDefaults,
  type CaptureDeps,
  type CaptureOptions,
  type CaptureStatus,
  type PodStatus,
} from './capture.js';
export { clean, type CleanOptions } from './clean.js';
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
