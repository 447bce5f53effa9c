export { type CgroupDriver, findCgroup2, processesIn, type QosClass } from './cgroup.js';
export { Lab, type NodeOptions } from './lab.js';
export { type Manifest, type ManifestFolder, readManifests, type ServiceOptions } from './manifests.js';
export {
  type AccessLogLine,
  MESH_NAMESPACE,
  type Mesh,
  type MeshAgent,
  type MeshOptions,
  startMesh,
} from './mesh.js';
export { addressPlan, type IpFamilies } from './network.js';
export type { LabNode } from './node.js';
export type { CaptureOptions, PacketCapture } from './pcap.js';
export type { LabPod, PodOptions } from './pod.js';
export type { ExecOptions, ExecResult, LabProcess, Place, SpawnOptions } from './process.js';
export { sweep } from './sweep.js';
export { type WaitOptions, waitFor } from './wait.js';
