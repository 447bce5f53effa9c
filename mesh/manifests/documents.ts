import {
  Composer,
  type CST,
  type Document,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  Parser,
  visit,
} from 'yaml';
import { messageOf } from '../common/errors.js';
import type { FieldPath } from './types.js';

/** One object of a file, with the lines of its fields. */
export interface ManifestDocument {
  readonly value: unknown;
  /** Line, from 1, of the deepest part of `path` that is there. */
  lineOf(path: FieldPath): number;
}

export interface DocumentProblem {
  readonly line: number;
  readonly reason: string;
}

export interface DocumentsOfFile {
  readonly documents: readonly ManifestDocument[];
  /** Documents that cannot be read at all. */
  readonly problems: readonly DocumentProblem[];
}

/** Expansions of anchors allowed in one document: against "billion laughs". */
const MAX_ALIASES = 100;
/** What makes documents of tokens recurses: a file of brackets would end the process, not the parse. */
const MAX_DEPTH = 200;
/** It compares each key with every other: a minute for 40,000. We look ourselves. */
const COMPOSING = { prettyErrors: false, uniqueKeys: false } as const;

/** Splits YAML or JSON text into objects; `kind: List` gives its items. Never throws. */
export function readDocuments(text: string, format: 'yaml' | 'json'): DocumentsOfFile {
  if (format === 'json') {
    try {
      JSON.parse(text);
    } catch (error) {
      return { documents: [], problems: [{ line: 1, reason: `not JSON: ${messageOf(error)}` }] };
    }
  }
  // JSON is YAML but for tabs between tokens; inside strings JSON has none.
  const lines = new LineCounter();
  const documents: ManifestDocument[] = [];
  const problems: DocumentProblem[] = [];
  const tokens = new Parser(lines.addNewLine).parse(format === 'json' ? text.replaceAll('\t', ' ') : text);
  const tooDeep = (offset: number) =>
    problems.push({ line: lines.linePos(offset).line, reason: `nested deeper than ${MAX_DEPTH} levels` });
  for (const document of new Composer(COMPOSING).compose(withoutDeep(tokens, tooDeep))) {
    const [error] = document.errors;
    const repeated = error === undefined ? repeatedKeyOf(document) : null;
    const at = (offset: number) => lines.linePos(offset).line;
    if (error !== undefined) problems.push({ line: at(error.pos[0]), reason: `not YAML: ${error.message}` });
    else if (repeated !== null)
      problems.push({ line: at(repeated.offset), reason: `not YAML: key '${repeated.key}' is there twice` });
    else addObjects(document, lines, documents, problems);
  }
  return { documents, problems };
}

function* withoutDeep(tokens: Iterable<CST.Token>, onDeep: (offset: number) => void): Iterable<CST.Token> {
  for (const token of tokens)
    if (token.type === 'document' && isDeep(token)) onDeep(token.value?.offset ?? token.offset);
    else yield token;
}

/** Without recursion itself. */
function isDeep(document: CST.Document): boolean {
  const waiting: { readonly token: CST.Token | null | undefined; readonly depth: number }[] = [
    { token: document.value, depth: 0 },
  ];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { token, depth } = next;
    if (depth > MAX_DEPTH) return true;
    if (token === null || token === undefined || !('items' in token)) continue;
    for (const { key, value } of token.items)
      waiting.push({ token: key, depth: depth + 1 }, { token: value, depth: depth + 1 });
  }
  return false;
}

/** The first key that a map has twice. */
function repeatedKeyOf(document: Document): { readonly key: string; readonly offset: number } | null {
  let found: { key: string; offset: number } | null = null;
  visit(document, {
    Map(_key, map) {
      const seen = new Set<string>();
      for (const { key } of map.items) {
        if (!isScalar(key)) continue;
        const text = String(key.value);
        if (seen.has(text)) {
          found = { key: text, offset: key.range?.[0] ?? 0 };
          return visit.BREAK;
        }
        seen.add(text);
      }
      return undefined;
    },
  });
  return found;
}

function addObjects(
  document: Document,
  lines: LineCounter,
  documents: ManifestDocument[],
  problems: DocumentProblem[],
): void {
  const line = (path: FieldPath) => lines.linePos(offsetOf(document.contents, path)).line;
  try {
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
    const items = itemsOfList(value);
    if (value === null) return; // nothing but comments
    if (items === null) documents.push({ value, lineOf: line });
    else
      items.forEach((item, index) => {
        documents.push({ value: item, lineOf: (path) => line(['items', index, ...path]) });
      });
  } catch (error) {
    problems.push({ line: line([]), reason: messageOf(error) });
  }
}

function itemsOfList(value: unknown): readonly unknown[] | null {
  if (typeof value !== 'object' || value === null || !('kind' in value) || !('items' in value)) return null;
  return typeof value.kind === 'string' && value.kind.endsWith('List') && Array.isArray(value.items)
    ? value.items
    : null;
}

/** Where in the text the field begins: its key, for a field of a map. */
function offsetOf(root: Node | null, path: FieldPath): number {
  let node: unknown = root;
  let offset = root?.range?.[0] ?? 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(step));
      if (pair === undefined) return offset;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof step === 'number' && step < node.items.length) {
      node = node.items[step];
      offset = (node as Node).range?.[0] ?? offset;
    } else return offset;
  }
  return offset;
}
