import type { RawObject } from '../manifests/types.js';
import { KubeError } from './errors.js';

/** A proxy may say anything; timers that are set for more than 24 days end at once. */
const MAX_RETRY_AFTER_SECONDS = 120;

/** One event of a watch. */
export type WatchEvent =
  | { readonly type: 'put' | 'removed'; readonly object: RawObject }
  | { readonly type: 'bookmark'; readonly resourceVersion: string; readonly isInitialEnd: boolean };

/** @throws KubeError KUBE_REFUSED for an ERROR event (its `data.status` is that of an answer), KUBE_PROTOCOL for anything else that is none of the above. */
export function parseEvent(line: string): WatchEvent {
  const event = tryJson(line);
  const object = recordOf(event?.['object']);
  switch (event?.['type']) {
    case 'ADDED':
    case 'MODIFIED':
      return { type: 'put', object: objectOf(object) };
    case 'DELETED':
      return { type: 'removed', object: objectOf(object) };
    case 'BOOKMARK': {
      const metadata = recordOf(object?.['metadata']);
      const annotations = recordOf(metadata?.['annotations']);
      return {
        type: 'bookmark',
        resourceVersion: textOf(metadata?.['resourceVersion']),
        isInitialEnd: annotations?.['k8s.io/initial-events-end'] === 'true',
      };
    }
    case 'ERROR':
      throw refusal(object ?? {}, Number(object?.['code'] ?? 500), { event: 'ERROR' });
    default:
      throw new KubeError('KUBE_PROTOCOL', `not an event of a watch: ${line.slice(0, 200)}`);
  }
}

/** An error of a `Status` object, as answer or inside a watch. */
export function refusal(
  status: Record<string, unknown>,
  code: number,
  data: Record<string, unknown>,
): KubeError {
  const details = recordOf(status['details']) ?? {};
  const seconds = Number(details['retryAfterSeconds'] ?? 0);
  const reason = textOf(status['reason']);
  const message = textOf(status['message']) || reason || `status ${code}`;
  return new KubeError('KUBE_REFUSED', `the API server refused: ${message}`, {
    ...data,
    status: code,
    reason,
    retryAfterMs: seconds > 0 ? Math.min(seconds, MAX_RETRY_AFTER_SECONDS) * 1000 : 0,
  });
}

/** The form that everything here relies on. @throws KubeError KUBE_PROTOCOL */
export function objectOf(value: unknown): RawObject {
  const object = recordOf(value);
  const metadata = recordOf(object?.['metadata']);
  if (object === undefined || textOf(metadata?.['name']) === '')
    throw new KubeError('KUBE_PROTOCOL', 'an object without metadata.name');
  return object as RawObject;
}

export function recordOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function tryJson(text: string): Record<string, unknown> | undefined {
  try {
    return recordOf(JSON.parse(text));
  } catch {
    return undefined;
  }
}
