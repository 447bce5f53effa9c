import { type Document, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml';
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
  const parsed = parseAllDocuments(format === 'json' ? text.replaceAll('\t', ' ') : text, {
    lineCounter: lines,
    prettyErrors: false,
  });
  const documents: ManifestDocument[] = [];
  const problems: DocumentProblem[] = [];
  for (const document of Array.isArray(parsed) ? parsed : []) {
    const error = document.errors[0];
    if (error !== undefined)
      problems.push({ line: lines.linePos(error.pos[0]).line, reason: `not YAML: ${error.message}` });
    else addObjects(document, lines, documents, problems);
  }
  return { documents, problems };
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
