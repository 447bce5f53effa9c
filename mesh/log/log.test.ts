import { expect, test } from '@jest/globals';
import { createLog } from './index.js';

function capture(level: 'info' | 'silent'): {
  log: ReturnType<typeof createLog>;
  lines: Record<string, unknown>[];
} {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string) => void lines.push(JSON.parse(line));
  return { log: createLog({ level, component: 'agent' }, { destination: { write } }), lines };
}

test('one JSON line with level, time, component, message and fields', () => {
  const { log, lines } = capture('info');
  log.info({ pod: 'a' }, 'captured');
  log.debug('not at this level');
  expect(lines).toEqual([
    {
      level: 'info',
      time: expect.stringMatching(/^\d{4}-.*Z$/),
      component: 'agent',
      pod: 'a',
      msg: 'captured',
    },
  ]);
});

test('a child names its own component last, and errors keep their stack', () => {
  const { log, lines } = capture('info');
  log.child({ room: 'xds' }).error({ err: new Error('boom') }, 'failed');
  expect(lines[0]).toMatchObject({
    level: 'error',
    room: 'xds',
    err: { message: 'boom', stack: expect.any(String) },
  });
});

test('a level set later holds for children, too, and their children; a child may have its own', () => {
  const { log, lines } = capture('info');
  const child = log.child({ room: 'xds' });
  const grandchild = child.child({ stream: 1 });
  log.level = 'debug';
  child.debug('a');
  grandchild.debug('b');
  child.level = 'warn';
  log.debug('c');
  child.info('not at this level');
  expect(lines.map((line) => line['msg'])).toEqual(['a', 'b', 'c']);
});

test('silent writes nothing', () => {
  const { log, lines } = capture('silent');
  log.error('x');
  expect(lines).toEqual([]);
});
