// A lab kubelet: `node main.js CONFIG.json`, in its node's network namespace and kubelet cgroup. Ends at SIGTERM with all its pods.
import { readFileSync } from 'node:fs';
import { ApiClient } from '../api.js';
import { CLUSTER_DOMAIN, SERVICE_RANGES } from '../commands.js';
import { mountBpffs } from './bpffs.js';
import { serveNames } from './names.js';
import { keepNode } from './node.js';
import { PodWorker } from './pod.js';
import { AddressPool, CLUSTER_DNS, sweepPods } from './sandbox.js';
import { serveKubelet } from './server.js';
import { type EndpointSlice, type Service, serveServices } from './services.js';
import type { KubeletConfig, Pod } from './types.js';

const config = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as KubeletConfig;
const stopping = new AbortController();
const say = (line: string): void => void process.stdout.write(`${new Date().toISOString()} ${line}\n`);

process.once('SIGTERM', () => {
  stopping.abort();
  process.exit(0);
});
process.on('unhandledRejection', (thrown) => say(`unhandled: ${(thrown as Error).stack ?? thrown}`));

const { url, caFile } = config;
const api = new ApiClient({ url, caFile, credentials: config.credentials });
const workers = new Map<string, PodWorker>();
const addresses = new AddressPool({ reuse: config.reuseAddresses });

function podChanged(pod: Pod, type: string): void {
  const uid = pod.metadata.uid!;
  const worker = workers.get(uid);
  if (type === 'DELETED') {
    worker?.remove().then(
      () => workers.delete(uid),
      (error: Error) => say(`${worker.name}: ${error.stack}`),
    );
  } else if (worker !== undefined) worker.update(pod);
  else if (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') {
    // Of an earlier kubelet; nothing of it is here.
    if (pod.metadata.deletionTimestamp !== undefined) deleteObject(pod);
  } else {
    const made = new PodWorker(pod, { config, api, addresses, say });
    workers.set(uid, made);
    if (pod.metadata.deletionTimestamp !== undefined) made.update(pod);
  }
}

// By which its cgroup is found.
process.title = 'kubelet';
mountBpffs(config.bpffsDir);
await sweepPods(config);
const services = new Map<string, Service>();
const slices = new Map<string, EndpointSlice>();
serveNames(
  { address: CLUSTER_DNS, domain: CLUSTER_DOMAIN, signal: stopping.signal },
  { services, slices, say },
);
const proxyApi = new ApiClient({ url, caFile, credentials: config.proxyCredentials });
const proxyOptions = { node: config.node, ranges: SERVICE_RANGES, signal: stopping.signal };
void serveServices(proxyOptions, { api: proxyApi, services, slices, say });
function deleteObject({ metadata }: Pod): void {
  const options = { gracePeriodSeconds: 0, preconditions: { uid: metadata.uid } };
  api
    .delete(`/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}`, options)
    .catch((error: Error) => say(`${metadata.name}: ${error.message}`));
}

serveKubelet({ config, workers, say });
await keepNode(config, api, stopping.signal, say);
say(`node ${config.node} is registered`);
const query = `fieldSelector=${encodeURIComponent(`spec.nodeName=${config.node}`)}`;
await api.watch<Pod>('/api/v1/pods', podChanged, { signal: stopping.signal, query });
