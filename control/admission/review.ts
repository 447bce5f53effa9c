import { isDeepStrictEqual } from 'node:util';
import { objectOf, recordOf, textOf } from '../../mesh/kube/index.js';
import { type FieldProblem, formatPath, type RawObject, type Remark } from '../../mesh/manifests/index.js';
import { decodeObject } from '../model/index.js';
import { ownLimitationsOf, type TranslateOptions } from '../translate/index.js';
import type { AdmissionResponse } from './types.js';

/** API servers cut longer ones, and all of them together at 4096 bytes. */
const MAX_WARNING_CHARS = 250;
const MAX_WARNINGS = 10;
const MAX_MESSAGE_CHARS = 4000;

/** Reviews an object as the controller would read it. Null: `body` is no AdmissionReview of v1. */
export function review(body: unknown, options: TranslateOptions): AdmissionResponse | null {
  const request = recordOf(recordOf(body)?.['request']);
  const uid = textOf(request?.['uid']);
  if (recordOf(body)?.['apiVersion'] !== 'admission.k8s.io/v1' || request === undefined || uid === '')
    return null;
  const now = tryObject(request['object']);
  // Something is deleted, or has no form that can be looked at.
  if (now === null) return { uid, allowed: true };
  const { problems, warnings } = judge(now, options);
  if (problems.length === 0) return { uid, allowed: true, ...warningsOf(warnings) };
  if (isForgiven(now, tryObject(request['oldObject']), problems))
    return { uid, allowed: true, ...warningsOf([...problems.map(textOfProblem), ...warnings]) };
  return { uid, allowed: false, status: refusalOf(now, problems), ...warningsOf(warnings) };
}

interface Judgement {
  readonly problems: readonly FieldProblem[];
  readonly warnings: readonly string[];
}

function judge(object: RawObject, options: TranslateOptions): Judgement {
  const decoded = decodeObject(object);
  if (decoded.outcome === 'ignored') return { problems: [], warnings: [] };
  if (decoded.outcome === 'unknown-kind')
    return { problems: [], warnings: decoded.remark === undefined ? [] : [textOfRemark(decoded.remark)] };
  const warnings = (decoded.remarks ?? []).map(textOfRemark);
  if (decoded.outcome === 'invalid') return { problems: decoded.problems, warnings };
  const limitations = ownLimitationsOf(decoded.value, options).map(({ field, reason, effect }) =>
    joined([field, reason, effect]),
  );
  return { problems: [], warnings: [...warnings, ...limitations] };
}

/** What is being deleted must be able to lose its finalizers, and what was invalid before there was this webhook its labels. */
function isForgiven(now: RawObject, before: RawObject | null, problems: readonly FieldProblem[]): boolean {
  if (before === null) return false;
  if (now.metadata['deletionTimestamp'] !== undefined) return true;
  if (!isDeepStrictEqual(now['spec'], before['spec'])) return false;
  const decoded = decodeObject(before);
  const known = decoded.outcome === 'invalid' ? decoded.problems.map(textOfProblem) : [];
  return problems.every((problem) => known.includes(textOfProblem(problem)));
}

function refusalOf({ kind, metadata }: RawObject, problems: readonly FieldProblem[]) {
  const name = [textOf(metadata['namespace']), metadata.name].filter((part) => part !== '').join('/');
  const message = `${kind} ${name}: ${problems.map(textOfProblem).join('; ')}`;
  return {
    // Of Invalid (422) kubectl shows the causes only, not whose they are.
    code: 400,
    reason: 'BadRequest',
    message: message.slice(0, MAX_MESSAGE_CHARS),
    details: {
      causes: problems.slice(0, MAX_WARNINGS).map(({ path, reason }) => ({
        reason: 'FieldValueInvalid',
        field: formatPath(path),
        message: reason,
      })),
    },
  };
}

function warningsOf(texts: readonly string[]): Pick<AdmissionResponse, 'warnings'> {
  if (texts.length === 0) return {};
  const shown = texts.slice(0, MAX_WARNINGS).map((text) => text.slice(0, MAX_WARNING_CHARS));
  if (texts.length > MAX_WARNINGS) shown.push(`and ${texts.length - MAX_WARNINGS} more: see its status`);
  return { warnings: shown };
}

function tryObject(value: unknown): RawObject | null {
  const record = recordOf(value);
  if (record === undefined) return null;
  const metadata = recordOf(record['metadata']) ?? {};
  // A name that is yet to be generated.
  const name = textOf(metadata['name']) || `${textOf(metadata['generateName'])}x`;
  const object = objectOf({ ...record, metadata: { ...metadata, name } });
  return textOf(object.kind) === '' || textOf(object.apiVersion) === '' ? null : object;
}

function textOfProblem({ path, reason }: FieldProblem): string {
  return joined([formatPath(path), reason]);
}

function textOfRemark({ path, reason, effect }: Remark): string {
  return joined([formatPath(path), reason, effect]);
}

function joined(parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join(': ');
}
