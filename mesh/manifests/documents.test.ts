import { describe, expect, test } from '@jest/globals';
import { readDocuments } from './documents.js';

describe('readDocuments', () => {
  test('several documents, with the lines of their fields', () => {
    const text =
      'kind: A\nmetadata:\n  name: a\n---\n# comment\nkind: B\nspec:\n  ports:\n    - port: 1\n    - port: 2\n';
    const { documents, problems } = readDocuments(text, 'yaml');
    expect(problems).toEqual([]);
    expect(documents.map(({ value }) => (value as { kind: string }).kind)).toEqual(['A', 'B']);
    expect(documents[0]!.lineOf(['metadata', 'name'])).toBe(3);
    expect(documents[1]!.lineOf([])).toBe(6);
    expect(documents[1]!.lineOf(['spec', 'ports', 1, 'port'])).toBe(10);
  });

  test('a field that is not there has the line of what is', () => {
    const [document] = readDocuments('kind: A\nspec:\n  a: 1\n', 'yaml').documents;
    expect(document!.lineOf(['spec', 'b', 'c'])).toBe(2);
  });

  test('a List gives its items, each with its own lines', () => {
    const text = 'kind: List\napiVersion: v1\nitems:\n  - kind: A\n  - kind: B\n    x: 1\n';
    const { documents } = readDocuments(text, 'yaml');
    expect(documents.map(({ value }) => value)).toEqual([{ kind: 'A' }, { kind: 'B', x: 1 }]);
    expect(documents[1]!.lineOf(['x'])).toBe(6);
  });

  test('JSON with tabs; JSON that is only YAML is refused', () => {
    const { documents } = readDocuments('{\n\t"kind": "A",\n\t"n": 1\n}', 'json');
    expect(documents[0]!.value).toEqual({ kind: 'A', n: 1 });
    expect(documents[0]!.lineOf(['n'])).toBe(3);
    expect(readDocuments('kind: A', 'json').problems[0]!.reason).toMatch(/^not JSON/);
  });

  test('one bad document does not hide the others', () => {
    const { documents, problems } = readDocuments('kind: A\n---\na: b: c\n---\nkind: C\n', 'yaml');
    expect(documents.map(({ value }) => (value as { kind: string }).kind)).toEqual(['A', 'C']);
    expect(problems).toEqual([{ line: 3, reason: expect.stringMatching(/^not YAML/) }]);
  });

  test.each([
    ['duplicate keys', 'kind: A\nkind: B\n'],
    [
      'aliases that multiply',
      `a: &a [x,x]\n${[...'bcdefghi'].map((l, i) => `${l}: &${l} [${`*${'abcdefgh'[i]},`.repeat(9)}]\n`).join('')}`,
    ],
  ])('%s are refused', (_name, text) => {
    const { documents, problems } = readDocuments(text, 'yaml');
    expect(documents).toEqual([]);
    expect(problems).toHaveLength(1);
  });

  test.each([
    ['['.repeat(20_000)],
    ['{a: '.repeat(20_000)],
    ['- '.repeat(20_000)],
    ['? '.repeat(20_000)],
    [`${'['.repeat(5_000)}${']'.repeat(5_000)}`],
  ])(
    'what is nested without end is one problem, and ends neither the process nor the other documents (%#)',
    (deep) => {
      const { documents, problems } = readDocuments(`kind: A\n---\n${deep}`, 'yaml');
      expect(documents.map(({ value }) => value)).toEqual([{ kind: 'A' }]);
      expect(problems).toEqual([{ line: 3, reason: 'nested deeper than 200 levels' }]);
      expect(readDocuments(`${'['.repeat(5_000)}${']'.repeat(5_000)}`, 'json').problems).toHaveLength(1);
    },
  );

  test('a map of very many keys is read in no time, and a key that is there twice found', () => {
    const keys = Array.from({ length: 20_000 }, (_, i) => `  k${i}: v\n`).join('');
    expect(readDocuments(`kind: A\ndata:\n${keys}`, 'yaml').problems).toEqual([]);
    expect(readDocuments(`kind: A\ndata:\n${keys}  "k0": v\n`, 'yaml').problems).toEqual([
      { line: 20_003, reason: "not YAML: key 'k0' is there twice" },
    ]);
  });

  test('empty text and comments hold nothing', () => {
    for (const text of ['', '\n', '# x\n', '---\n---\n'])
      expect(readDocuments(text, 'yaml')).toEqual({ documents: [], problems: [] });
  });

  test('keys of Object.prototype are plain keys', () => {
    const [document] = readDocuments('__proto__: {polluted: 1}\nkind: A\n', 'yaml').documents;
    expect((document!.value as { polluted?: unknown }).polluted).toBeUndefined();
  });
});
