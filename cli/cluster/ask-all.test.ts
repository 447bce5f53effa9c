import { expect, test } from '@jest/globals';
import { CliError } from '../errors.js';
import { askAll, unaskedNotes } from './ask-all.js';
import type { Cluster, MeshPod } from './cluster.js';

const pod = (name: string): MeshPod => ({
  name,
  node: name,
  isReady: true,
  isEnding: false,
  phase: 'Running',
  restarts: 0,
  createdMs: 0,
});

test('asks at most 50, six at a time; an answer that fails is kept beside the others', async () => {
  let [open, most] = [0, 0];
  const ask = async (_program: string, { name }: MeshPod) => {
    most = Math.max(most, ++open);
    await new Promise((resolve) => setTimeout(resolve, 1));
    open--;
    if (name === 'n3') throw new CliError('UNREACHABLE', 'n3 is away', {});
    return name;
  };
  const pods = Array.from({ length: 52 }, (_, index) => pod(`n${index}`));
  const asked = await askAll({ ask } as unknown as Cluster, 'agent', pods, async () => 'never');
  expect(asked.map(({ pod: { name } }) => name)).toEqual(pods.map(({ name }) => name));
  expect(asked[4]!.answer).toBe('n4');
  expect(asked[3]!.answer).toBeInstanceOf(CliError);
  expect(asked.slice(49).map(({ answer }) => answer)).toEqual(['n49', null, null]);
  expect(most).toBe(6);
  expect(unaskedNotes(asked)).toEqual(['2 agents were not asked themselves: --node for one']);
});
