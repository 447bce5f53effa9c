import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { eventually } from '../../test/support/wait.js';
import { createLog } from '../log/index.js';
import { FOLDER_SOURCE_DEFAULTS, FolderSource, type FolderSourceOptions, type RawObject } from './index.js';
import type { Decoded } from './types.js';

jest.setTimeout(30_000); // the machine may be busy

/** Kind `Thing` is read; `spec.size` must be a number, -1 concerns nobody. */
function decode(object: RawObject): Decoded<number> {
  if (object.kind === 'Thong') return unread('did you mean Thing?', true);
  if (object.kind === 'Route') return unread('is not read', false);
  if (object.kind !== 'Thing') return { outcome: 'unknown-kind' };
  const key = `Thing/${object.metadata.name}`;
  const size = (object['spec'] as { size?: unknown } | undefined)?.size;
  if (size === -1) return { outcome: 'ignored', key };
  if (typeof size === 'number') return { outcome: 'object', key, value: size };
  return { outcome: 'invalid', key, problems: [{ path: ['spec', 'size'], reason: 'must be a number' }] };
}

function unread(reason: string, isProblem: boolean): Decoded<number> {
  return { outcome: 'unknown-kind', remark: { path: ['kind'], reason, effect: 'not in force', isProblem } };
}

const thing = (name: string, size: unknown) =>
  `apiVersion: v1\nkind: Thing\nmetadata:\n  name: ${name}\nspec:\n  size: ${size}\n`;

let folder: string;
let state: Map<string, number>;
let batches: number;
let logged: Record<string, unknown>[];
let source: FolderSource<number>;

function write(name: string, text: string): void {
  const file = join(folder, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

async function start(): Promise<void> {
  await source.start();
}

const problems = () =>
  source.problems.map(({ file, ...rest }) => ({ ...rest, file: file.slice(folder.length + 1) }));

function open(options: Partial<FolderSourceOptions> = {}, decoder = decode): FolderSource<number> {
  const destination = { write: (line: string) => void logged.push(JSON.parse(line)) };
  return new FolderSource<number>(
    { ...FOLDER_SOURCE_DEFAULTS, folder, rescanMs: 60_000, ...options },
    {
      decode: decoder,
      onBatch: ({ upserted, removed }) => {
        batches++;
        for (const key of removed) state.delete(key);
        for (const [key, value] of upserted) state.set(key, value);
      },
      log: createLog({ level: 'info', component: 'test' }, { destination }),
    },
  );
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-files-'));
  state = new Map();
  batches = 0;
  logged = [];
  source = open();
});

afterEach(() => {
  source.stop();
  rmSync(folder, { recursive: true, force: true });
});

describe('the folder', () => {
  test('any layout: files of several objects, subfolders, JSON, links; dot files are left out', async () => {
    write('a.yaml', `${thing('a', 1)}---\n${thing('b', 2)}`);
    write('deep/er/c.yml', thing('c', 3));
    write(
      'd.json',
      JSON.stringify({ apiVersion: 'v1', kind: 'Thing', metadata: { name: 'd' }, spec: { size: 4 } }),
    );
    write('.hidden.yaml', thing('x', 9));
    write('notes.txt', thing('x', 9));
    write('.data/e.yaml', thing('e', 5));
    symlinkSync('.data/e.yaml', join(folder, 'e.yaml'));
    await start();
    expect(Object.fromEntries(state)).toEqual({
      'Thing/a': 1,
      'Thing/b': 2,
      'Thing/c': 3,
      'Thing/d': 4,
      'Thing/e': 5,
    });
    expect(source.problems).toEqual([]);
  });

  test('of a kind that holds its place, one that was never good has a stand-in until it is good', async () => {
    const standIn = (object: RawObject): Decoded<number> => {
      const decoded = decode(object);
      return decoded.outcome === 'invalid' ? { ...decoded, inPlace: -100 } : decoded;
    };
    source.stop();
    source = open({}, standIn);
    write('a.yaml', thing('a', 'x'));
    await start();
    expect([...state]).toEqual([['Thing/a', -100]]);
    expect([...source.invalidKeys]).toEqual([]);
    expect(problems()).toHaveLength(1);
    write('a.yaml', 'not: [yaml');
    await eventually(() => expect(problems()[0]!.reason).toMatch(/^not YAML/));
    expect([...state]).toEqual([['Thing/a', -100]]);
    write('a.yaml', thing('a', 1));
    await eventually(() => expect([...state]).toEqual([['Thing/a', 1]]));
    write('a.yaml', thing('a', 'y'));
    await eventually(() => expect(problems()).toHaveLength(1));
    expect([...state]).toEqual([['Thing/a', 1]]);
  });

  test('a folder that is not there is an error at start', async () => {
    rmSync(folder, { recursive: true });
    await expect(start()).rejects.toMatchObject({ code: 'MANIFESTS_UNREADABLE' });
  });

  test('kinds that are not read are problems or notices as the decoder says, each with its place; others pass', async () => {
    const other = (kind: string) => `apiVersion: x/v1\nkind: ${kind}\nmetadata:\n  name: o\n---\n`;
    write('a.yaml', other('Other') + other('Thong') + other('Route') + thing('a', 1));
    await start();
    const shared = { file: 'a.yaml', name: 'o', field: 'kind', effect: 'not in force' };
    expect(problems()).toEqual([{ ...shared, line: 7, kind: 'Thong', reason: 'did you mean Thing?' }]);
    expect(source.notices).toEqual([
      { ...shared, file: join(folder, 'a.yaml'), line: 12, kind: 'Route', reason: 'is not read' },
    ]);
    expect(logged.map(({ msg, kind }) => [msg, kind])).toEqual([
      ['manifest problem', 'Thong'],
      ['manifest notice', 'Route'],
    ]);
    write('a.yaml', thing('a', 1));
    await eventually(() => expect([...source.problems, ...source.notices]).toEqual([]));
  });
});

describe('objects that do not concern the program', () => {
  test('of other kinds pass unseen where the kinds are told, whatever their form', async () => {
    source = open({ onlyKinds: new Set(['Thing']) });
    write('a.yaml', `kind: Other\n---\n${thing('a', 1)}---\nkind: Thing\n`);
    await start();
    expect([...source.objects]).toEqual([['Thing/a', 1]]);
    expect(problems()).toEqual([expect.objectContaining({ kind: 'Thing', field: 'apiVersion', line: 10 })]);
    expect(logged.filter(({ kind }) => kind !== 'Thing')).toEqual([]);
  });

  test('are gone when they stop concerning it, also while another of the file is not readable', async () => {
    write('a.yaml', `${thing('a', 1)}---\n${thing('b', 2)}`);
    await start();
    write('a.yaml', `${thing('a', -1)}---\nkind: [\n`);
    await eventually(() => expect([...source.objects.keys()]).toEqual(['Thing/b']));
    expect([...state.keys()]).toEqual(['Thing/b']);
  });
});

describe('a change', () => {
  test('is taken over: written, replaced, in a new folder, deleted', async () => {
    write('a.yaml', thing('a', 1));
    await start();
    write('a.yaml', thing('a', 2));
    await eventually(() => expect(state.get('Thing/a')).toBe(2));
    write('.new', thing('a', 3));
    renameSync(join(folder, '.new'), join(folder, 'a.yaml'));
    await eventually(() => expect(state.get('Thing/a')).toBe(3));
    write('new/b.yaml', thing('b', 4));
    await eventually(() => expect(state.get('Thing/b')).toBe(4));
    write('new/b.yaml', thing('b', 5));
    await eventually(() => expect(state.get('Thing/b')).toBe(5));
    rmSync(join(folder, 'new'), { recursive: true });
    await eventually(() => expect(state.has('Thing/b')).toBe(false));
    expect(state.get('Thing/a')).toBe(3);
  });

  test('acts within 200 ms', async () => {
    await start();
    let best = Number.POSITIVE_INFINITY;
    // Mostly 60 ms; the best of several is not the doing of whoever else is on the machine.
    for (let i = 0; i < 20 && best > 200; i++) {
      const before = performance.now();
      write('a.yaml', thing('a', i));
      await eventually(() => expect(state.get('Thing/a')).toBe(i));
      best = Math.min(best, performance.now() - before);
    }
    expect(best).toBeLessThan(200);
  });

  test('a swapped link (as ConfigMap volumes are updated) is seen', async () => {
    write('.v1/a.yaml', thing('a', 1));
    write('.v2/a.yaml', thing('a', 2));
    symlinkSync('.v1', join(folder, '..data'));
    symlinkSync('..data/a.yaml', join(folder, 'a.yaml'));
    await start();
    symlinkSync('.v2', join(folder, '..tmp'));
    renameSync(join(folder, '..tmp'), join(folder, '..data'));
    await eventually(() => expect(state.get('Thing/a')).toBe(2));
  });

  test('in a folder that was replaced by another of the same name is seen', async () => {
    write('sub/a.yaml', thing('a', 1));
    await start();
    write('.other/a.yaml', thing('a', 2));
    renameSync(join(folder, 'sub'), join(folder, '.old'));
    renameSync(join(folder, '.other'), join(folder, 'sub'));
    await eventually(() => expect(state.get('Thing/a')).toBe(2));
    write('sub/a.yaml', thing('a', 3));
    await eventually(() => expect(state.get('Thing/a')).toBe(3));
  });

  test('same size, written twice at once: the last one counts', async () => {
    await start();
    for (let i = 10; i < 60; i++) {
      write('a.yaml', thing('a', i));
      if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 45));
    }
    await eventually(() => expect(state.get('Thing/a')).toBe(59));
  });
});

describe('invalid objects', () => {
  test('are reported with file, line, kind, name, field and reason; the last good version stays', async () => {
    write('a.yaml', `${thing('a', 1)}---\n${thing('b', 2)}`);
    await start();
    write('a.yaml', `${thing('a', 'big')}---\n${thing('b', 3)}`);
    await eventually(() => expect(state.get('Thing/b')).toBe(3));
    expect(state.get('Thing/a')).toBe(1);
    const problem = {
      file: 'a.yaml',
      line: 6,
      kind: 'Thing',
      name: 'a',
      field: 'spec.size',
      reason: 'must be a number',
      effect: 'its last good version stays in force',
    };
    expect(problems()).toEqual([problem]);
    expect(logged).toContainEqual(
      expect.objectContaining({ ...problem, file: join(folder, 'a.yaml'), level: 'warn' }),
    );
    write('a.yaml', `${thing('a', 4)}---\n${thing('b', 3)}`);
    await eventually(() => expect(state.get('Thing/a')).toBe(4));
    expect(source.problems).toEqual([]);
  });

  test('new ones are not in force, but known by their keys until some file has a good version', async () => {
    write('b.yaml', thing('a', 'big'));
    await start();
    expect(state.size).toBe(0);
    expect(problems()).toMatchObject([{ effect: 'it is not in force' }]);
    expect([...source.invalidKeys]).toEqual(['Thing/a']);
    write('b.yaml', 'kind: [\n');
    await eventually(() => expect(problems()[0]!.kind).toBe(''));
    expect([...source.invalidKeys]).toEqual(['Thing/a']);
    expect(batches).toBe(1);
    write('a.yaml', thing('a', 1));
    await eventually(() => expect(state.get('Thing/a')).toBe(1));
    expect([...source.invalidKeys]).toEqual([]);
  });

  test('an object twice in a file: neither version replaces the other', async () => {
    write('a.yaml', `${thing('a', 'big')}---\n${thing('a', 2)}`);
    await start();
    expect(state.size).toBe(0);
    expect(problems().map(({ line, reason }) => [line, reason])).toEqual([
      [6, 'must be a number'],
      [8, 'defined twice in this file, first in line 1'],
    ]);
  });

  test('a file that is no YAML any more keeps all its objects; one deleted from a sound file goes', async () => {
    write('a.yaml', `${thing('a', 1)}---\n${thing('b', 2)}`);
    await start();
    write('a.yaml', `${thing('a', 7)}---\nkind: [\n`);
    await eventually(() => expect(state.get('Thing/a')).toBe(7));
    expect(state.get('Thing/b')).toBe(2);
    write('a.yaml', thing('a', 7));
    await eventually(() => expect(state.has('Thing/b')).toBe(false));
  });

  test.each([
    ['no object', '- 1\n', ''],
    ['no kind', 'apiVersion: v1\nmetadata: {name: a}\n', 'kind'],
    ['no name', 'apiVersion: v1\nkind: Thing\nmetadata: {}\n', 'metadata.name'],
    ['name of a wrong type', 'apiVersion: v1\nkind: Thing\nmetadata: {name: 1}\n', 'metadata.name'],
  ])('%s: reported', async (_name, text, field) => {
    write('a.yaml', text);
    await start();
    expect(problems()).toEqual([expect.objectContaining({ file: 'a.yaml', field })]);
  });

  test('an object in two files: the first by path is in force, the other takes over when it goes', async () => {
    write('a.yaml', thing('a', 1));
    write('b.yaml', thing('a', 2));
    await start();
    expect(state.get('Thing/a')).toBe(1);
    expect(problems()).toEqual([
      expect.objectContaining({ file: 'b.yaml', name: 'a', reason: expect.stringContaining('a.yaml') }),
    ]);
    rmSync(join(folder, 'a.yaml'));
    await eventually(() => expect(state.get('Thing/a')).toBe(2));
    expect(source.problems).toEqual([]);
  });

  test('the folder gone for a while: what was there stays in force', async () => {
    write('a.yaml', thing('a', 1));
    await start();
    renameSync(folder, `${folder}.away`);
    await eventually(() => expect(problems()).toHaveLength(1));
    expect(state.get('Thing/a')).toBe(1);
    renameSync(`${folder}.away`, folder);
  });

  test('too large a file is reported', async () => {
    source.stop();
    source = open({ maxFileBytes: 10 });
    write('a.yaml', thing('a', 1));
    await start();
    expect(problems()).toEqual([
      expect.objectContaining({ file: 'a.yaml', reason: expect.stringContaining('limit') }),
    ]);
  });
});
