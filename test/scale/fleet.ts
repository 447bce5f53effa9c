import { type ChildProcess, fork } from 'node:child_process';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';

/** What all agents are waited for to hold: of names that begin so, a number of versions of that kind. */
export interface Watch {
  readonly id: number;
  /** `Address:Kubernetes//Pod/shop/` */
  readonly prefix: string;
  readonly what: 'present' | 'captured' | 'revision';
  readonly revision?: string;
  readonly expected: number;
}

export interface FleetAgent {
  readonly node: string;
  readonly token: string;
}

export type FleetCommand =
  | {
      readonly kind: 'start';
      readonly url: string;
      readonly rootFile: string;
      readonly agents: readonly FleetAgent[];
    }
  | { readonly kind: 'watch'; readonly watch: Watch }
  | { readonly kind: 'hang'; readonly agents: number }
  | { readonly kind: 'summary' };

export type FleetAnswer =
  | { readonly kind: 'reached'; readonly id: number; readonly timesMs: readonly number[] }
  | {
      readonly kind: 'summary';
      /** `<resources>/<digest>` of what agents hold; one, when all hold the same. */
      readonly digests: readonly string[];
      readonly reconnects: number;
      readonly ends: Readonly<Record<string, number>>;
      /** That the first agent holds. */
      readonly names: readonly string[];
      readonly watches: readonly string[];
    };

export type FleetSummary = Extract<FleetAnswer, { kind: 'summary' }>;

/** Milliseconds of the clock that all processes of the machine share. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/** Simulated agents, in processes of their own. */
export class Fleet {
  readonly #children: readonly ChildProcess[];
  readonly #waiting = new Map<number, (timesMs: readonly number[]) => void>();
  #nextId = 1;

  constructor(processes: number, nice: number) {
    const program = fileURLToPath(new URL('fleet-main.js', import.meta.url));
    this.#children = Array.from({ length: processes }, () =>
      fork(program, {
        env: { ...process.env, NODE_OPTIONS: '' },
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      }),
    );
    for (const child of this.#children) {
      setPriority(child.pid!, nice);
      child.on('message', (answer: FleetAnswer) => {
        if (answer.kind === 'reached') this.#waiting.get(answer.id)?.(answer.timesMs);
      });
    }
  }

  get pids(): readonly number[] {
    return this.#children.map(({ pid }) => pid!);
  }

  /** Agents connect, and come back whenever they are cut off. */
  start(options: Omit<Extract<FleetCommand, { kind: 'start' }>, 'kind'>): void {
    const each = Math.ceil(options.agents.length / this.#children.length);
    this.#children.forEach((child, index) => {
      const agents = options.agents.slice(index * each, (index + 1) * each);
      child.send({ ...options, kind: 'start', agents } satisfies FleetCommand);
    });
  }

  /** When each agent had it (`monotonicMs`), sorted. @throws after `timeoutMs`, with what is missing. */
  async reached(watch: Omit<Watch, 'id'>, timeoutMs: number): Promise<readonly number[]> {
    const id = this.#nextId++;
    const timesMs: number[] = [];
    let answers = 0;
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        timer = setTimeout(
          () => reject(new Error(`not within ${timeoutMs} ms: ${JSON.stringify(watch)}`)),
          timeoutMs,
        );
        this.#waiting.set(id, (times) => {
          timesMs.push(...times);
          if (++answers === this.#children.length) resolve();
        });
        for (const child of this.#children)
          child.send({ kind: 'watch', watch: { ...watch, id } } satisfies FleetCommand);
      });
    } catch (error) {
      const summaries = await this.summaries();
      throw new Error(
        `${(error as Error).message}\n${JSON.stringify(
          summaries.map(({ names: _, ...rest }) => rest),
          null,
          1,
        )}`,
      );
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
    return timesMs.sort((a, b) => a - b);
  }

  /** So many agents of the first process read nothing any more, and are not waited for. */
  hang(agents: number): void {
    this.#children[0]!.send({ kind: 'hang', agents } satisfies FleetCommand);
  }

  async summaries(): Promise<readonly FleetSummary[]> {
    return await Promise.all(
      this.#children.map(
        (child) =>
          new Promise<FleetSummary>((resolve) => {
            // Other answers may come in the same turn.
            const listen = (answer: FleetAnswer): void => {
              if (answer.kind !== 'summary') return;
              child.off('message', listen);
              resolve(answer);
            };
            child.on('message', listen);
            child.send({ kind: 'summary' } satisfies FleetCommand);
          }),
      ),
    );
  }

  close(): void {
    for (const child of this.#children) if (child.connected) child.disconnect();
  }
}
