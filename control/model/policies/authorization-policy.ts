import { type Fields, formatPath } from '../../../mesh/manifests/index.js';
import { readRule } from './authorization-rule.js';
import { readSelector } from './selector.js';
import type { AuthorizationPolicy, AuthorizationRule, PolicyTarget } from './types.js';

const ACTIONS = ['ALLOW', 'DENY', 'AUDIT', 'CUSTOM'] as const;
const SPEC = ['selector', 'targetRef', 'targetRefs', 'action', 'provider', 'rules'];
const DRY_RUN = 'istio.io/dry-run';
const EVERYTHING: AuthorizationRule = { clauses: [], beyond: [] };

/**
 * Reads an AuthorizationPolicy (mesh-apis.md 2.7). What cannot be read is a problem, and what is made of it allows no more than it may have
 * meant to: a part of a rule is `beyond`; a scope widens to the namespace, where an ALLOW then has no rules; a DENY without readable rules
 * denies everything; an action is DENY.
 */
export function decodeAuthorizationPolicy(
  fields: Fields,
  namespace: string,
  name: string,
): AuthorizationPolicy {
  const faulty = watch(fields);
  const spec = fields.object('spec').only(SPEC);
  const hasStrange = faulty();
  const written = spec.choice('action', ACTIONS, 'ALLOW');
  const isActionBad = faulty() || (hasStrange && !spec.has('action'));
  const action = isActionBad ? 'DENY' : written;
  checkProvider(spec, action);
  faulty();
  const scope = scopeOf(spec);
  const isScopeBad = faulty();
  const rules = spec.objects('rules');
  const isUnreadable = faulty() || hasStrange || isActionBad;
  const meta = { kind: 'AuthorizationPolicy', namespace, name, action, dryRun: isDryRun(fields) } as const;
  return {
    ...meta,
    ...(isScopeBad ? { selector: null, targets: [] } : scope),
    rules:
      action === 'ALLOW' && (isUnreadable || isScopeBad)
        ? []
        : isUnreadable
          ? [EVERYTHING]
          : rules.map((rule) => readRule(rule, namespace)),
  };
}

/** Tells whether something was found wrong since it was last asked. */
function watch({ problems }: Fields): () => boolean {
  let seen = problems.length;
  return () => {
    const hasMore = problems.length > seen;
    seen = problems.length;
    return hasMore;
  };
}

function checkProvider(spec: Fields, action: AuthorizationPolicy['action']): void {
  const provider = spec.object('provider').only(['name']).text('name');
  if (action === 'CUSTOM' && provider === '') spec.wrong('provider', 'is required for action CUSTOM');
}

function scopeOf(spec: Fields): Pick<AuthorizationPolicy, 'selector' | 'targets'> {
  const selector = readSelector(spec);
  const targets = [
    ...(spec.has('targetRef') ? [spec.object('targetRef')] : []),
    ...spec.objects('targetRefs'),
  ];
  if (targets.length > 0 && spec.has('selector'))
    spec.wrong('selector', `excludes ${formatPath(targets[0]!.path)}`);
  if (spec.has('targetRefs') && targets.length === 0) spec.wrong('targetRefs', 'is empty');
  return { selector, targets: targets.map(readTarget) };
}

const TARGET_GROUPS: ReadonlyMap<string, readonly string[]> = new Map([
  ['Service', ['', 'core']],
  ['ServiceEntry', ['networking.istio.io']],
  ['Gateway', ['gateway.networking.k8s.io']],
  ['GatewayClass', ['gateway.networking.k8s.io']],
]);

function readTarget(target: Fields): PolicyTarget {
  target.only(['group', 'kind', 'name', 'namespace']);
  const kind = target.text('kind');
  const group = target.text('group');
  const name = target.text('name');
  if (TARGET_GROUPS.get(kind)?.includes(group) !== true)
    target.wrong('kind', `'${kind}' of group '${group}' cannot be targeted`);
  if (name === '') target.wrong('name', 'is required');
  if (target.has('namespace'))
    target.wrong('namespace', 'is not supported: targets are of the policy itself');
  return { kind, name };
}

function isDryRun(fields: Fields): boolean {
  const metadata = fields.object('metadata');
  const text = metadata.textMap('annotations')[DRY_RUN] ?? 'false';
  if (text !== 'true' && text !== 'false')
    metadata.object('annotations').wrong(DRY_RUN, `must be 'true' or 'false', not '${text}'`);
  return text === 'true';
}
