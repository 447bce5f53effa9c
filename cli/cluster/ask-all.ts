import type { AdminClient } from '../admin-client.js';
import { type CliError, orError } from '../errors.js';
import type { Cluster, MeshPod, Program } from './cluster.js';

/** Each pod that is asked is a kubectl of its own for a moment. */
const askedAtOnce = 6;
const askedAtMost = 50;

export interface Answered<Answer> {
  readonly pod: MeshPod;
  /** Null: it was not asked, as there are too many. */
  readonly answer: Answer | CliError | null;
}

/** Asks these pods of a program, a few at a time, by their order. */
export async function askAll<Answer>(
  cluster: Pick<Cluster, 'ask'>,
  program: Program,
  pods: readonly MeshPod[],
  question: (admin: AdminClient) => Promise<Answer>,
): Promise<readonly Answered<Answer>[]> {
  const answered: Answered<Answer>[] = pods.map((pod) => ({ pod, answer: null }));
  let next = 0;
  const work = async (): Promise<void> => {
    for (let at = next++; at < Math.min(pods.length, askedAtMost); at = next++) {
      const pod = pods[at]!;
      answered[at] = { pod, answer: await orError(cluster.ask(program, pod, question)) };
    }
  };
  await Promise.all(Array.from({ length: askedAtOnce }, work));
  return answered;
}

/** What is to be said of agents that were too many; empty: all were asked. */
export function unaskedNotes(agents: readonly Answered<unknown>[]): string[] {
  const count = agents.filter(({ answer }) => answer === null).length;
  return count === 0 ? [] : [`${count} agents were not asked themselves: --node for one`];
}
