import { TOKEN_AUDIENCE } from '../../control/ca/index.js';
import { type ControlPlane, type KubeObject, startControlPlane } from '../kubernetes/index.js';
import type { FleetAgent } from './fleet.js';
import {
  nodeName,
  type PodPlan,
  type Population,
  podObject,
  REDIRECTED,
  runningStatus,
} from './population.js';

const MESH_NAMESPACE = 'culvert-system';
const AGENT_ACCOUNT = 'culvert-agent';
const TOKEN_SECONDS = 7200;
/** Addresses of the agents' pods are beyond those of all others. */
const AGENT_INDEX = 1 << 20;

/** Requests at once: what the API server's own limits let through. */
const PARALLEL = 32;

/** Those that the objects need; no node lifecycle and no garbage collector, as nodes have no kubelet and pods no ReplicaSet. */
const CONTROLLERS = [
  'serviceaccount-controller',
  'serviceaccount-token-controller',
  'namespace-controller',
  'endpointslice-controller',
  'root-ca-certificate-publisher-controller',
];

/** The real API server with the objects of a large cluster: written by the harness as admin, in the place of kubelets and agents. */
export class ScaleCluster {
  readonly plane: ControlPlane;

  private constructor(plane: ControlPlane) {
    this.plane = plane;
  }

  static async start(say: (line: string) => void): Promise<ScaleCluster> {
    const plane = await startControlPlane({
      onProgress: say,
      flags: {
        controllerManager: [`--controllers=${CONTROLLERS.join(',')}`],
        apiServer: ['--max-requests-inflight=800', '--max-mutating-requests-inflight=400'],
      },
    });
    return new ScaleCluster(plane);
  }

  /** Everything there is at first; services last, so that their slices are written once. */
  async populate({ namespaces, nodes, pods, services }: Population): Promise<void> {
    await this.#each(namespaces, (namespace) => this.#create('/api/v1/namespaces', namespace));
    await this.#each(namespaces, ({ metadata: { name } }) =>
      this.#create(`/api/v1/namespaces/${name}/serviceaccounts`, { metadata: { name: 'default' } }),
    );
    await this.#each(nodes, (node) => this.#create('/api/v1/nodes', node));
    await this.#each(pods, (pod) => this.#writePod(pod));
    await this.#each(services, (service) =>
      this.#create(`/api/v1/namespaces/${service.metadata.namespace}/services`, service),
    );
  }

  /** A pod of the agent on each node, and the token of each, bound to it: what the API server says of it is asked by the controller. */
  async agents(count: number): Promise<readonly FleetAgent[]> {
    const account = { metadata: { name: AGENT_ACCOUNT, namespace: MESH_NAMESPACE } };
    await this.#create('/api/v1/namespaces', { metadata: { name: MESH_NAMESPACE } });
    await this.#create(`/api/v1/namespaces/${MESH_NAMESPACE}/serviceaccounts`, account);
    const agents: FleetAgent[] = [];
    await this.#each(
      Array.from({ length: count }, (_, index) => index),
      async (index) => {
        const node = nodeName(index);
        agents.push({ node, token: await this.#startAgent(node, AGENT_INDEX + index) });
      },
    );
    return agents;
  }

  async #startAgent(node: string, index: number): Promise<string> {
    const pod: PodPlan = {
      namespace: MESH_NAMESPACE,
      name: `${AGENT_ACCOUNT}-${node}`,
      index,
      node,
      meshed: false,
    };
    const object = podObject(pod);
    const spec = { ...(object['spec'] as object), serviceAccountName: AGENT_ACCOUNT };
    const { metadata } = await this.plane.api.post<KubeObject>(podsOf(pod), { ...object, spec });
    await this.plane.api.patch(`${pathOf(pod)}/status`, { status: runningStatus(pod) });
    const { status } = await this.plane.api.post<{ status: { token: string } }>(
      `/api/v1/namespaces/${MESH_NAMESPACE}/serviceaccounts/${AGENT_ACCOUNT}/token`,
      {
        spec: {
          audiences: [TOKEN_AUDIENCE],
          expirationSeconds: TOKEN_SECONDS,
          boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod.name, uid: metadata.uid },
        },
      },
    );
    return status.token;
  }

  /** As it is long after its start, in two requests. */
  async #writePod(pod: PodPlan): Promise<void> {
    await this.plane.api.post(podsOf(pod), podObject(pod, pod.meshed ? REDIRECTED : {}));
    await this.plane.api.patch(`${pathOf(pod)}/status`, { status: runningStatus(pod) });
  }

  /** Creates it, says that it runs, and, if it is in the mesh, that it is captured: what scheduler, kubelet and agent do. */
  async startPod(pod: PodPlan): Promise<void> {
    await this.plane.api.post(podsOf(pod), podObject(pod));
    await this.plane.api.patch(`${pathOf(pod)}/status`, { status: runningStatus(pod) });
    if (pod.meshed) await this.annotate(pod);
  }

  /** As its agent does. */
  async annotate(pod: PodPlan): Promise<void> {
    await this.plane.api.patch(`${pathOf(pod)}/status`, { metadata: { annotations: REDIRECTED } });
  }

  async annotateAll(pods: readonly PodPlan[]): Promise<void> {
    await this.#each(pods, (pod) => this.annotate(pod));
  }

  /** With its grace, and then as its kubelet does. */
  async endPod(pod: PodPlan, graceMs: number): Promise<void> {
    await this.plane.api.delete(pathOf(pod), {});
    await new Promise((resolve) => setTimeout(resolve, graceMs));
    await this.plane.api.delete(pathOf(pod), { gracePeriodSeconds: 0 });
  }

  async labelNamespace(name: string, labels: Readonly<Record<string, string>>): Promise<void> {
    await this.plane.api.patch(`/api/v1/namespaces/${name}`, { metadata: { labels } });
  }

  async labelPod(pod: PodPlan, labels: Readonly<Record<string, string>>): Promise<void> {
    await this.plane.api.patch(pathOf(pod), { metadata: { labels } });
  }

  /** Names of the resources that agents must be told of all pods and services: read from the API server, a page at a time. */
  async addressNames(): Promise<Set<string>> {
    const names = new Set<string>();
    for (const kind of ['pods', 'services']) {
      let next = '';
      do {
        const query = `limit=500${next === '' ? '' : `&continue=${encodeURIComponent(next)}`}`;
        const page = await this.plane.api.get<Page>(`/api/v1/${kind}?${query}`);
        for (const { metadata } of page.items)
          names.add(
            kind === 'pods'
              ? `Address:Kubernetes//Pod/${metadata.namespace}/${metadata.name}`
              : `Address:${metadata.namespace}/${metadata.name}.${metadata.namespace}.svc.cluster.local`,
          );
        next = page.metadata.continue ?? '';
      } while (next !== '');
    }
    for (const name of await this.#ownEndpoints()) names.add(name);
    return names;
  }

  /** The API server's Service has no selector: its endpoints are resources of their own. */
  async #ownEndpoints(): Promise<readonly string[]> {
    const path = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices';
    const { items } = await this.plane.api.get<{ items: readonly Slice[] }>(path);
    return items.flatMap(({ metadata, endpoints }) =>
      endpoints
        .flatMap(({ addresses }) => addresses)
        .map(
          (address) =>
            `Address:Kubernetes/discovery.k8s.io/EndpointSlice/default/${metadata.name}/${address}`,
        ),
    );
  }

  close(): void {
    this.plane.close();
  }

  async #create(path: string, object: KubeObject): Promise<void> {
    await this.plane.api.post(path, object).catch((error: { status?: number }) => {
      if (error.status !== 409) throw error;
    });
  }

  async #each<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
    const queue = items.values();
    await Promise.all(
      Array.from({ length: PARALLEL }, async () => {
        for (const item of queue) await act(item);
      }),
    );
  }
}

interface Slice extends KubeObject {
  readonly endpoints: readonly { readonly addresses: readonly string[] }[];
}

interface Page {
  readonly metadata: { readonly continue?: string };
  readonly items: readonly KubeObject[];
}

const podsOf = ({ namespace }: PodPlan): string => `/api/v1/namespaces/${namespace}/pods`;
const pathOf = (pod: PodPlan): string => `${podsOf(pod)}/${pod.name}`;

/** Uids of the pods of a namespace begin so, at agents. */
export const podsIn = (namespace: string): string => `Address:Kubernetes//Pod/${namespace}/`;
