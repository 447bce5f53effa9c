import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { packageRoot } from '../native/package-root.js';
import { type AlertCase, alertCases } from './support/alert-cases.js';

// Every alert of the chart, fired and not fired by Prometheus' own evaluator (promtool test rules).

interface Rule {
  readonly alert?: string;
  readonly record?: string;
  readonly expr: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

const root = packageRoot();
const rulesFile = join(root, 'charts/culvert/rules/culvert.yaml');
const { groups } = parse(readFileSync(rulesFile, 'utf8')) as { groups: { rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);
const alerts = rules.filter(({ alert }) => alert !== undefined);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-rules-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** As Grafana would ask them. */
function dashboardQueries(): string[] {
  const text = readFileSync(join(root, 'charts/culvert/dashboards/culvert.json'), 'utf8');
  const { panels } = JSON.parse(text) as { panels: { targets?: { expr: string }[] }[] };
  return panels.flatMap(({ targets = [] }) =>
    targets.map(({ expr }) => expr.replaceAll('$__rate_interval', '5m').replaceAll('$namespace', '.*')),
  );
}

/** Series every minute, and how many alerts fire at the end of it. */
function testOf(name: string, series: Readonly<Record<string, string>>, firing: number): object {
  const query = `count(ALERTS{alertname="${name}", alertstate="firing"}) or vector(0)`;
  return {
    interval: '1m',
    input_series: Object.entries(series).map(([key, values]) => ({ series: key, values })),
    promql_expr_test: [{ expr: query, eval_time: '150m', exp_samples: [{ labels: '{}', value: firing }] }],
  };
}

function promtool(name: string, { fires, quiet, count = 1 }: AlertCase): void {
  const file = join(folder, `${name}.json`);
  const tests = [testOf(name, fires, count), ...quiet.map((series) => testOf(name, series, 0))];
  // Alone: all 30 together take promtool some seconds each time.
  const own = rules.filter(({ alert }) => alert === name);
  writeFileSync(`${file}.rules`, JSON.stringify({ groups: [{ name, rules: own }] }));
  writeFileSync(file, JSON.stringify({ rule_files: [`${file}.rules`], evaluation_interval: '1m', tests }));
  execFileSync('promtool', ['test', 'rules', file], { encoding: 'utf8', stdio: 'pipe' });
}

describe('alerts', () => {
  test('promtool has nothing to say against the file', () => {
    expect(
      execFileSync('promtool', ['check', 'rules', '--lint=all', '--lint-fatal', rulesFile], {
        encoding: 'utf8',
      }),
    ).toContain('SUCCESS');
  });

  test('each has a case here, and no other', () => {
    expect(Object.keys(alertCases).toSorted()).toEqual(alerts.map(({ alert }) => alert!).toSorted());
  });

  test.each(alerts.map(({ alert }) => alert!))('%s fires, and does not fire', (name) => {
    promtool(name, alertCases[name]!);
  });

  test.each(alerts)(
    '$alert has a severity, texts, and a runbook that is there',
    ({ alert, labels, annotations }) => {
      expect(['critical', 'warning']).toContain(labels['severity']);
      expect(Object.keys(annotations)).toEqual(['summary', 'description', 'runbook']);
      const [file, anchor] = annotations['runbook']!.split('#') as [string, string];
      const headings = [...readFileSync(join(root, file), 'utf8').matchAll(/^### (\w+)$/gm)].map(
        (match) => match[1]!,
      );
      expect(headings.filter((heading) => heading.toLowerCase() === anchor)).toEqual([alert]);
    },
  );

  test('the dashboard asks what promtool can read', () => {
    const file = join(folder, 'dashboard.rules');
    const recorded = dashboardQueries().map((expr, at) => ({ record: `panel:${at}`, expr }));
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules: recorded }] }));
    expect(execFileSync('promtool', ['check', 'rules', file], { encoding: 'utf8' })).toContain('SUCCESS');
  });

  test('expressions, also of the dashboard, are of metrics that docs/metrics.md lists', () => {
    const documented = new Set(
      [...readFileSync(join(root, 'docs/metrics.md'), 'utf8').matchAll(/^\| `(\w+)` \|/gm)].map(
        (match) => match[1]!,
      ),
    );
    const named = [...rules.map(({ expr }) => expr), ...dashboardQueries()].flatMap((expr) =>
      [...expr.matchAll(/\b(?:culvert|pilot|citadel|istio)_\w+/g)].map(([name]) =>
        name.replace(/_(bucket|count|sum)$/, ''),
      ),
    );
    expect(named.length).toBeGreaterThan(20);
    expect([...new Set(named)].filter((name) => !documented.has(name))).toEqual([]);
  });
});
