import { readFileSync } from 'node:fs';
import { Router, WorkloadTexts } from '../../agent/routing/index.js';
import type { WorkerData } from '../../agent/tunnel/index.js';
import { Workers } from '../../agent/workers.js';
import { WorkerPool } from '../../mesh/io/index.js';
import { createLog } from '../../mesh/log/index.js';
import { Authorizer } from '../../mesh/policy/index.js';
import { updateWith } from '../../mesh/store/fixtures.js';
import { createStore, identityOf, type Store } from '../../mesh/store/index.js';
import type { ScaleFigures } from './scale.js';
import { decodePushes } from './scale-push.js';
import { type ScaleOptions, scaleWorkload } from './scale-state.js';
import type { FromScaleWorker, ToScaleWorker } from './scale-worker.js';
import { threadCpuMs } from './usage.js';

// A large mesh in an agent's main thread and workers, in a process of its own; prints what it took as JSON.

/** The agent's default. */
const workers = 1;
const updates = 50;
const lookUps = 200_000;
const outlierDetection = { consecutiveConnectFailures: 5, baseEjectionMs: 30_000, maxEjectionPercent: 50 };
const workerData: WorkerData = {
  network: '',
  logLevel: 'error',
  trustDomain: 'cluster.local',
  trustDomainAliases: [],
  accessLog: 'off',
  outlierDetection,
};

class ScaleRun {
  readonly #store = createStore();
  readonly #stalls: ((longestMs: number) => void)[] = [];
  readonly #pool: WorkerPool<ToScaleWorker, FromScaleWorker>;
  readonly #workers: Workers;

  constructor() {
    const log = createLog({ level: 'error', component: 'scale' });
    const entry = new URL('./scale-worker.js', import.meta.url);
    this.#pool = new WorkerPool(
      { entry, workers, workerData },
      {
        log,
        onMessage: (worker, message) => {
          if (message.kind === 'scale-turn') this.#stalls.shift()?.(message.longestMs);
          else this.#workers.onMessage(worker, message);
        },
        onWorkerRestarted: () => {},
      },
    );
    const pool = this.#pool as unknown as ConstructorParameters<typeof Workers>[1]['pool'];
    this.#workers = new Workers({ count: workers }, { pool, store: this.#store });
  }

  async run(options: ScaleOptions, files: readonly string[]): Promise<ScaleFigures> {
    this.#pool.start();
    await this.#longestTurnMs();
    const pushes = files.map((file) => readFileSync(file));
    await this.#longestTurnMs();
    const snapshotMs = await this.#timed(() => {
      const update = decodePushes(pushes);
      this.#store.apply(update);
      this.#workers.applyStore(update);
    });
    const longestTurnMs = await this.#longestTurnMs();
    const updateMs: number[] = [];
    for (let index = 0; index < updates; index++) {
      const change = updateWith({ workloads: [scaleWorkload(index * 7, options.services, `v${index}`)] });
      updateMs.push(
        await this.#timed(() => {
          this.#store.apply(change);
          this.#workers.applyStore(change);
        }),
      );
    }
    const rssMb = process.memoryUsage.rss() / 2 ** 20;
    const figures = {
      snapshotMs,
      longestTurnMs,
      updateMs: Math.max(...updateMs),
      rssMb,
      routeUs: routeUs(this.#store, options),
      authorizeUs: authorizeUs(this.#store, options),
    };
    await this.#pool.stop();
    return figures;
  }

  /** Until every worker has it in force: messages are taken in order. */
  async #timed(apply: () => void): Promise<number> {
    const startMs = performance.now();
    apply();
    await this.#workers.reports();
    return performance.now() - startMs;
  }

  /** Of all workers, since it was asked last. */
  async #longestTurnMs(): Promise<number> {
    const answers = Array.from(
      { length: workers },
      () => new Promise<number>((resolve) => this.#stalls.push(resolve)),
    );
    this.#pool.post('all', { kind: 'scale-turn' });
    return Math.max(...(await Promise.all(answers)));
  }
}

/** One connection's look-up: VIP to endpoint. */
function routeUs(store: Store, { services }: ScaleOptions): number {
  const router = new Router(
    { network: '', outlierDetection },
    {
      store,
      texts: new WorkloadTexts(),
      hostnames: { addressesOf: () => [] },
      nowMs: () => 0,
      random: Math.random,
    },
  );
  const source = store.workloadByAddress('', '10.1.0.1')!;
  return perCallUs((index) => {
    const service = (index * 31) % services;
    const destination = { address: `10.96.${service >> 8}.${service & 255}`, port: 80 };
    const route = router.route({ source, destination, client: '10.1.0.1', tried: [] });
    if (route.kind !== 'hbone') throw new Error(`routed to ${route.kind}`);
  });
}

function authorizeUs(store: Store, { workloads }: ScaleOptions): number {
  const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
  const all = store.snapshot().workloads;
  const identities = all.slice(0, 1000).map(identityOf);
  return perCallUs((index) => {
    const workload = all[(index * 31) % workloads]!;
    authorizer.authorize(workload, {
      identity: identities[index % identities.length]!,
      sourceAddress: '10.1.0.1',
      destinationAddress: workload.addresses[0]!,
      destinationPort: 8080,
    });
  });
}

function perCallUs(call: (index: number) => void): number {
  for (let index = 0; index < lookUps / 10; index++) call(index);
  const startMs = threadCpuMs();
  for (let index = 0; index < lookUps; index++) call(index);
  return ((threadCpuMs() - startMs) * 1000) / lookUps;
}

const [options, ...files] = process.argv.slice(2);
const figures = await new ScaleRun().run(JSON.parse(options!) as ScaleOptions, files);
process.stdout.write(`${JSON.stringify(figures)}\n`);
