import { readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../mesh/common/errors.js';
import type { ApiClient, KubernetesSource } from '../mesh/kube/index.js';
import type { Log } from '../mesh/log/index.js';
import { keyOf } from '../mesh/manifests/index.js';

/** ConfigMap in the agent's namespace: while it is there, nodes are released. Each agent says so under its node's name. */
const MARKER = 'culvert-uninstall';
const RETRY_MS = 2_000;

export interface UninstallOptions {
  readonly kubeconfig: string;
  /** The agent's own. */
  readonly podNamespace: string;
  readonly node: string;
  readonly runDir: string;
}

export interface UninstallDeps {
  /** Takes every pod out of the mesh, and all that is ours off the node. Called once. */
  readonly release: () => Promise<void>;
  /** The marker is gone again: whoever took it away wants the mesh to go on, and this agent cannot. */
  readonly onWithdrawn: () => void;
  readonly log: Log;
}

/** Waits for the uninstall marker, and acts on it: without it an agent's pins outlive it, so that nothing leaks between two agents. */
export class Uninstall {
  readonly #options: UninstallOptions;
  readonly #deps: UninstallDeps;
  #client: ApiClient | null = null;
  #source: KubernetesSource<string> | null = null;
  /** Of the marker, its uid; null: there was none. */
  #marker: string | null = null;
  #released: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(options: UninstallOptions, deps: UninstallDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** The node is released, or about to be. */
  get isMarked(): boolean {
    return this.#marker !== null;
  }

  /** Looks from now on. Throws KUBE_ACCESS. */
  async start(): Promise<void> {
    const { API_CLIENT_DEFAULTS, ApiClient, KUBERNETES_SOURCE_DEFAULTS, KubernetesSource, openAccess } =
      await import('../mesh/kube/index.js');
    if (this.#isStopped) return;
    const { kubeconfig, podNamespace: namespace } = this.#options;
    const access = openAccess({ kubeconfig });
    this.#client = new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'culvert-agent' }, { access });
    const fieldSelector = `metadata.name=${MARKER}`;
    const kinds = [{ kind: 'ConfigMap', apiVersions: ['v1'], namespace, fieldSelector }];
    this.#source = new KubernetesSource<string>(
      { ...KUBERNETES_SOURCE_DEFAULTS, kinds },
      {
        client: this.#client,
        decode: ({ kind, metadata: { name, uid } }) => ({
          outcome: 'object',
          key: keyOf(kind, namespace, name),
          value: String(uid),
        }),
        onBatch: () => this.#look(),
        log: this.#deps.log,
      },
    );
    void this.#source.start();
  }

  stop(): void {
    this.#isStopped = true;
    this.#source?.stop();
    this.#client?.close();
  }

  #look(): void {
    const before = this.#marker;
    const marker = this.#source?.get(keyOf('ConfigMap', this.#options.podNamespace, MARKER));
    if (marker === before || this.#isStopped) return;
    if (marker !== undefined) {
      this.#marker = marker;
      // In another one, whoever uninstalls again has not read yet that we have released the node.
      this.#released = before === null ? this.#release() : this.#released.then(() => this.#report());
    } else if (before !== null) {
      this.#deps.log.warn(
        { configMap: MARKER },
        'the uninstall marker is gone: this agent ends, the next one captures again',
      );
      this.stop();
      this.#deps.onWithdrawn();
    }
  }

  async #release(): Promise<void> {
    const { log, release } = this.#deps;
    log.warn(
      { configMap: MARKER },
      'the mesh is being uninstalled: all pods of this node are taken out of it',
    );
    for (;;) {
      if (this.#isStopped) return;
      try {
        await release();
        removeRunFolder(this.#options.runDir);
        break;
      } catch (error) {
        log.error({ error: messageOf(error) }, 'the node could not be released; it is tried again');
        await sleep(RETRY_MS);
      }
    }
    await this.#report();
  }

  async #report(): Promise<void> {
    const { podNamespace, node } = this.#options;
    while (!this.#isStopped) {
      try {
        await this.#client!.request({
          method: 'PATCH',
          path: `/api/v1/namespaces/${podNamespace}/configmaps/${MARKER}`,
          contentType: 'application/merge-patch+json',
          body: { data: { [node]: 'released' } },
        });
        this.#deps.log.info({ node }, 'nothing of the mesh is left on this node but this process');
        return;
      } catch (error) {
        this.#deps.log.warn(
          { error: messageOf(error) },
          'that the node is released could not be told; it is tried again',
        );
        await sleep(RETRY_MS);
      }
    }
  }
}

/** Sockets and files of agents; the folder itself stays where it is a mount of the pod. */
function removeRunFolder(folder: string): void {
  try {
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { force: true });
    rmdirSync(folder);
  } catch (error) {
    if (!['ENOENT', 'EBUSY'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
