import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { podsIn, ScaleCluster } from './cluster.js';
import { ControllerProcess, cpuSecondsOf, freePort, type Usage } from './controller.js';
import { Fleet, monotonicMs } from './fleet.js';
import {
  DATAPLANE_LABEL,
  LARGE,
  type Population,
  PROBE,
  populationOf,
  type ScaleOptions,
  smallNamespace,
} from './population.js';
import { type Recording, ReplayServer, record } from './recording.js';
import { quantile, type Row } from './report.js';
import { Roller } from './roller.js';

export interface ScaleRunOptions extends ScaleOptions {
  /** Processes of simulated agents. */
  readonly fleets: number;
  /** Further flags of the controller's node. */
  readonly nodeFlags: readonly string[];
  /** Of nothing but the first phases: for profiles. */
  readonly until?: Phase;
}

export const PHASES = ['start', 'idle', 'small', 'large', 'slow', 'roll', 'replay'] as const;
export type Phase = (typeof PHASES)[number];

export interface ScaleResult {
  readonly rows: readonly Row[];
  /** What must be so whatever the machine does; empty: all is well. */
  readonly faults: readonly string[];
}

const PATIENCE_MS = 120_000;
const LIMIT_MB = 700;
/** Some 20 snapshots. */
const UNDER_WAY_MB = 120;
/** Agents that hang, for one change of many pods. */
const HANGING = 20;
const everything = { prefix: 'Address:', what: 'present' } as const;

/** One run: a cluster, a controller, its agents, and what they are put through. */
export class ScaleRun {
  readonly #options: ScaleRunOptions;
  readonly #say: (line: string) => void;
  readonly #folder = mkdtempSync(join(tmpdir(), 'culvert-scale-'));
  readonly #population: Population;
  readonly #rows: Row[] = [];
  readonly #faults: string[] = [];
  readonly #fleet: Fleet;
  #cluster!: ScaleCluster;
  #controller!: ControllerProcess;
  #port = 0;
  #probes = 0;
  #recording: Recording | null = null;
  #rolledPerSecond = 0;

  constructor(options: ScaleRunOptions, say: (line: string) => void) {
    this.#options = options;
    this.#say = say;
    this.#population = populationOf(options);
    this.#fleet = new Fleet(options.fleets, options.nice);
  }

  async run(): Promise<ScaleResult> {
    try {
      this.#cluster = await ScaleCluster.start(this.#say);
      this.#port = await freePort();
      await this.#timed('objects written', () => this.#cluster.populate(this.#population));
      const phases: Record<Phase, () => Promise<void>> = {
        start: () => this.#start(),
        idle: () => this.#idle(),
        small: () => this.#small(),
        large: () => this.#large(),
        slow: () => this.#slow(),
        roll: () => this.#roll(),
        replay: () => this.#replay(),
      };
      for (const phase of PHASES) {
        await this.#timed(phase, phases[phase]);
        if (phase === this.#options.until) break;
      }
      return { rows: this.#rows, faults: this.#faults };
    } finally {
      await this.#controller?.stop();
      this.#fleet.close();
      this.#cluster?.close();
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }

  async #start(): Promise<void> {
    const agents = await this.#cluster.agents(this.#options.agents);
    const expected = (await this.#cluster.addressNames()).size;
    const startMs = monotonicMs();
    await this.#spawn(this.#cluster.plane.kubeconfig);
    const usage = this.#controller.phase();
    await this.#controller.ready(PATIENCE_MS);
    const readyMs = monotonicMs() - startMs;
    const rootFile = join(this.#folder, 'state', 'root-cert.pem');
    this.#fleet.start({ url: `https://localhost:${this.#port}`, rootFile, agents });
    const synced = this.#fleet.reached({ ...everything, expected }, PATIENCE_MS);
    const underWayMb = await this.#mostUnderWayMb(synced);
    const times = await synced;
    this.#row('start: most bytes under way to agents', underWayMb, 'MB', UNDER_WAY_MB);
    this.#row('start: controller ready', readyMs / 1000, 's');
    this.#row('start: from nothing to all agents synced', (times.at(-1)! - startMs) / 1000, 's', 60);
    this.#usage('start', usage());
    await this.#same('start', expected);
  }

  async #spawn(kubeconfig: string): Promise<void> {
    const { nodeFlags, nice } = this.#options;
    const state = join(this.#folder, 'state');
    this.#controller = await ControllerProcess.spawn({
      kubeconfig,
      state,
      port: this.#port,
      nodeFlags,
      nice,
    });
  }

  async #idle(): Promise<void> {
    await sleep(2000);
    const usage = this.#controller.phase();
    await sleep(this.#options.idleSeconds * 1000);
    const { cpuSeconds, seconds } = usage();
    this.#row('idle: CPU of the controller', (cpuSeconds / seconds) * 100, '%');
    this.#row('idle: resident', this.#controller.rssMb, 'MB');
  }

  /** Namespaces are labelled one after another. */
  async #small(): Promise<void> {
    const usage = this.#controller.phase();
    const latencies: number[] = [];
    for (let round = 0; round < this.#options.rounds; round++)
      latencies.push(await this.#label(smallNamespace(round)));
    latencies.sort((a, b) => a - b);
    const what = `a namespace of ${this.#options.smallPods} pods labelled`;
    this.#row(`${what}: at all agents, p50 of ${latencies.length}`, quantile(latencies, 0.5) / 1000, 's');
    this.#row(`${what}: at all agents, p99`, quantile(latencies, 0.99) / 1000, 's', 2);
    this.#usage(what, usage());
  }

  /** Milliseconds from the last annotation written to the last agent that has them all. */
  async #label(namespace: string): Promise<number> {
    const pods = this.#population.pods.filter((pod) => pod.namespace === namespace);
    const what = { prefix: podsIn(namespace), what: 'captured', expected: pods.length } as const;
    await this.#cluster.labelNamespace(namespace, DATAPLANE_LABEL);
    const reached = this.#fleet.reached(what, PATIENCE_MS);
    reached.catch(() => {}); // awaited below
    await sleep(300);
    await this.#cluster.annotateAll(pods);
    const writtenMs = monotonicMs();
    return (await reached).at(-1)! - writtenMs;
  }

  async #large(): Promise<void> {
    const before = await this.#probeTimes(10);
    const usage = this.#controller.phase();
    const labelled = this.#label(LARGE);
    const during = await this.#probeWhile(labelled);
    const latencyMs = await labelled;
    const what = `a namespace of ${this.#options.largePods} pods labelled`;
    this.#row(`${what}: at all agents`, latencyMs / 1000, 's', 30);
    this.#row('one pod changed, before: p50 at all agents', quantile(before, 0.5) / 1000, 's');
    this.#row('one pod changed, meanwhile: slowest of all', (during.at(-1) ?? 0) / 1000, 's');
    const delayMs = (during.at(-1) ?? 0) - quantile(before, 0.5);
    this.#row('one pod changed, meanwhile: later by', delayMs / 1000, 's', 1);
    this.#usage(what, usage());
  }

  /** Some agents read nothing any more, and the whole namespace leaves the mesh. */
  async #slow(): Promise<void> {
    const usage = this.#controller.phase();
    const hanging = Math.min(HANGING, Math.floor(this.#options.agents / 5));
    this.#fleet.hang(hanging);
    const gone = { prefix: podsIn(LARGE), what: 'captured', expected: 0 } as const;
    const reached = this.#fleet.reached(gone, PATIENCE_MS);
    reached.catch(() => {}); // awaited below
    await this.#cluster.labelNamespace(LARGE, { 'istio.io/dataplane-mode': 'none' });
    const writtenMs = monotonicMs();
    const latencyMs = (await reached).at(-1)! - writtenMs;
    this.#row(
      `${this.#options.largePods} pods unlabelled, ${hanging} agents hang: at all others`,
      latencyMs / 1000,
      's',
      30,
    );
    this.#usage('agents that hang', usage());
  }

  async #roll(): Promise<void> {
    const { rollPerSecond, rollSeconds } = this.#options;
    const recorder = await record(this.#cluster.plane, join(this.#folder, 'events'));
    const usage = this.#controller.phase();
    const harness = this.#harnessCpu();
    const roller = new Roller(this.#options, this.#population, this.#cluster);
    const rolled = roller.run();
    const probes = await this.#probeWhile(rolled, 2000);
    const done = await rolled;
    const spent = usage();
    const what = `${rollPerSecond} pods/s for ${rollSeconds} s`;
    this.#rolledPerSecond = done / spent.seconds;
    this.#row(`${what}: pods/s come and gone`, this.#rolledPerSecond, '/s');
    this.#row(`${what}: CPU of the controller`, (spent.cpuSeconds / spent.seconds) * 100, '%', 100);
    this.#row(
      `${what}: CPU of the simulated agents`,
      ((this.#harnessCpu() - harness) / spent.seconds) * 100,
      '%',
    );
    this.#row(`${what}: one pod changed, p50 at all agents`, quantile(probes, 0.5) / 1000, 's');
    this.#row(`${what}: one pod changed, p99`, quantile(probes, 0.99) / 1000, 's');
    this.#row(`${what}: most resident`, spent.peakMb, 'MB', LIMIT_MB);
    await this.#all('roll');
    this.#recording = await recorder.stop();
  }

  /** Another controller begins with what was there before the rolling, and is told the recording. */
  async #replay(): Promise<void> {
    const { replayPerSecond } = this.#options;
    await this.#controller.stop();
    const server = await ReplayServer.start(this.#recording!, this.#cluster.plane);
    try {
      const kubeconfig = join(this.#folder, 'replay.kubeconfig');
      writeFileSync(kubeconfig, JSON.stringify(kubeconfigFor(server.url)), { mode: 0o600 });
      const startMs = monotonicMs();
      await this.#spawn(kubeconfig);
      const restart = this.#controller.phase();
      await this.#controller.ready(PATIENCE_MS);
      const expected = (await this.#served()) ?? 0;
      const times = await this.#fleet.reached({ ...everything, expected }, PATIENCE_MS);
      this.#row('controller restarted: all agents synced again', (times.at(-1)! - startMs) / 1000, 's');
      this.#usage('controller restarted', restart());
      await sleep(3000);
      const usage = this.#controller.phase();
      const seconds = await server.play(replayPerSecond / this.#rolledPerSecond);
      const { cpuSeconds, peakMb } = usage();
      const what = `${replayPerSecond} pods/s of the recorded feed`;
      this.#row(`${what}: seconds`, seconds, 's');
      this.#row(`${what}: CPU of the controller`, (cpuSeconds / seconds) * 100, '%', 100);
      this.#row(`${what}: most resident`, peakMb, 'MB', LIMIT_MB);
      await this.#all('replay');
    } finally {
      server.close();
    }
  }

  /** 10^6 bytes of responses that connections had not taken yet. */
  async #mostUnderWayMb(work: Promise<unknown>): Promise<number> {
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    work.then(over, over);
    let most = 0;
    while (!isOver) {
      most = Math.max(most, (await this.#controller.metrics()).get('culvert_xds_under_way_bytes') ?? 0);
      await sleep(1000); // a scrape costs the controller some 10 ms
    }
    return most / 1e6;
  }

  async #served(): Promise<number | undefined> {
    return (await this.#controller.metrics()).get('culvert_xds_resources{type="istio.workload.Address"}');
  }

  /** Every agent gets to hold exactly what the API server has. */
  async #all(phase: string): Promise<void> {
    const names = await this.#cluster.addressNames();
    await this.#fleet.reached({ ...everything, expected: names.size }, PATIENCE_MS);
    await this.#same(phase, names.size, names);
  }

  async #same(phase: string, expected: number, names?: ReadonlySet<string>): Promise<void> {
    await sleep(1000); // one more push may be on its way
    const summaries = await this.#fleet.summaries();
    const digests = new Set(summaries.flatMap((one) => one.digests));
    if (digests.size !== 1) this.#faults.push(`${phase}: agents hold ${digests.size} different states`);
    const held = new Set(summaries[0]!.names.filter((name) => name.startsWith('Address:')));
    if (held.size !== expected)
      this.#faults.push(`${phase}: ${held.size} addresses held, ${expected} expected`);
    const missing = [...(names ?? [])].filter((name) => !held.has(name));
    if (missing.length > 0) this.#faults.push(`${phase}: ${missing.length} missing, first ${missing[0]}`);
    const reconnects = summaries.reduce((sum, one) => sum + one.reconnects, 0);
    if (reconnects > 0)
      this.#say(`${phase}: ${reconnects} reconnects ${JSON.stringify(summaries.map((one) => one.ends))}`);
  }

  /** One pod is given another label: milliseconds until all agents have it. */
  async #probe(): Promise<number> {
    const pod = this.#population.pods.find(({ namespace }) => namespace === PROBE)!;
    const revision = `p${++this.#probes}`;
    const what = { prefix: podsIn(PROBE), what: 'revision', revision, expected: 1 } as const;
    const reached = this.#fleet.reached(what, PATIENCE_MS);
    reached.catch(() => {}); // awaited below
    await this.#cluster.labelPod(pod, { version: revision });
    const writtenMs = monotonicMs();
    return Math.max(0, (await reached).at(-1)! - writtenMs);
  }

  async #probeTimes(times: number): Promise<number[]> {
    const latencies: number[] = [];
    for (let time = 0; time < times; time++) latencies.push(await this.#probe());
    return latencies.sort((a, b) => a - b);
  }

  async #probeWhile(work: Promise<unknown>, everyMs = 200): Promise<number[]> {
    const latencies: number[] = [];
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    work.then(over, over);
    while (!isOver) {
      latencies.push(await this.#probe());
      await sleep(everyMs);
    }
    return latencies.sort((a, b) => a - b);
  }

  #harnessCpu(): number {
    return this.#fleet.pids.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
  }

  #usage(what: string, { seconds, cpuSeconds, peakMb }: Usage): void {
    const load = loadavg()[0]!.toFixed(0);
    this.#row(
      `${what}: CPU seconds of the controller (in ${seconds.toFixed(0)} s, load ${load})`,
      cpuSeconds,
      's',
    );
    this.#row(`${what}: most resident`, peakMb, 'MB', LIMIT_MB);
  }

  #row(what: string, value: number, unit: string, limit?: number): void {
    this.#rows.push({ what, value, unit, ...(limit === undefined ? {} : { limit }) });
    this.#say(`  ${what}: ${value.toFixed(2)} ${unit}`);
  }

  async #timed(what: string, act: () => Promise<void>): Promise<void> {
    const startMs = performance.now();
    this.#say(what);
    await act();
    this.#say(`${what}: done in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  }
}

function kubeconfigFor(server: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'replay', cluster: { server } }],
    users: [{ name: 'user', user: {} }],
    contexts: [{ name: 'replay', context: { cluster: 'replay', user: 'user' } }],
    'current-context': 'replay',
  };
}
