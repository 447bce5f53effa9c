import type { Fields } from '../../mesh/manifests/index.js';
import { Limits, NEEDS_WAYPOINT, readCreatedAt } from './limits.js';
import type { AccessLogRules, Telemetry } from './service-types.js';

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;
/** Of the Telemetry's metadata: what its API has no fields for. */
const SAMPLING = 'culvert.io/access-log-sampling-per-mille';
const LEVEL = 'culvert.io/access-log-level';

/** Of a Telemetry (mesh-apis.md 2.9) agents have the access log, by namespace. */
export function decodeTelemetry(fields: Fields, namespace: string, name: string): Telemetry {
  const metadata = fields.object('metadata');
  const spec = fields.object('spec');
  const limits = new Limits();
  const ofWorkloads = {
    reason: 'agents know one access log a namespace',
    effect: 'the whole object is not in force',
  };
  limits.check(spec, ['accessLogging'], {
    selector: ofWorkloads,
    targetRef: ofWorkloads,
    targetRefs: ofWorkloads,
    tracing: NEEDS_WAYPOINT,
    metrics: { reason: "agents' metrics are fixed", effect: 'ignored' },
  });
  const isDisabled = spec.objects('accessLogging').map((rule) => readRule(rule, limits));
  const annotations = metadata.textMap('annotations');
  const isSaid = spec.has('accessLogging') || SAMPLING in annotations || LEVEL in annotations;
  return {
    kind: 'Telemetry',
    namespace,
    name,
    createdAt: readCreatedAt(metadata),
    isForNamespace: !['selector', 'targetRef', 'targetRefs'].some((field) => spec.has(field)),
    accessLog: isSaid
      ? {
          disabled: isDisabled.includes(true),
          samplingPerMille: readSampling(metadata, annotations[SAMPLING]),
          level: readLevel(metadata, annotations[LEVEL]),
        }
      : null,
    limits: limits.list,
  };
}

/** Whether it turns the log off. */
function readRule(rule: Fields, limits: Limits): boolean {
  limits.check(rule, ['match', 'disabled'], {
    providers: { reason: 'agents write one access log', effect: 'ignored' },
    filter: { reason: 'agents do not evaluate CEL', effect: 'every line is written' },
  });
  const match = rule.object('match');
  limits.check(match, ['mode']);
  const mode = match.choice('mode', ['CLIENT_AND_SERVER', 'CLIENT', 'SERVER'], 'CLIENT_AND_SERVER');
  const isDisabled = rule.flag('disabled');
  if (mode === 'CLIENT_AND_SERVER' || !isDisabled) return isDisabled;
  limits.add(match, 'mode', { reason: 'agents know one access log for both', effect: 'the log stays on' });
  return false;
}

function readSampling(metadata: Fields, text = '1000'): number {
  const value = /^\d{1,4}$/.test(text) ? Number(text) : -1;
  if (value < 0 || value > 1000)
    metadata.object('annotations').wrong(SAMPLING, `must be a number from 0 to 1000, not '${text}'`);
  return value;
}

function readLevel(metadata: Fields, text = 'debug'): AccessLogRules['level'] {
  const level = LEVELS.find((one) => one === text);
  if (level === undefined)
    metadata.object('annotations').wrong(LEVEL, `must be one of ${LEVELS.join(', ')}, not '${text}'`);
  return level ?? 'debug';
}
