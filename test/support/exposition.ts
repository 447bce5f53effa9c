/** A metric as /metrics shows it. */
export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  /** Names, in the order of its first sample; of a family without samples none. */
  readonly labels: readonly string[];
}

/** Families of a Prometheus text (0.0.4), in its order. */
export function familiesOf(text: string): Family[] {
  const lines = text.split('\n');
  return lines.flatMap((line, at) => {
    const [, name, help] = /^# HELP (\S+) (.*)$/.exec(line) ?? [];
    if (name === undefined) return [];
    const type = lines[at + 1]!.split(' ')[3]!;
    const sample = lines[at + 2] ?? '';
    const isOwn = sample.startsWith(`${name}{`) || sample.startsWith(`${name}_bucket{`);
    const labels = isOwn ? [...sample.matchAll(/[{,](\w+)="/g)].map((match) => match[1]!) : [];
    return [{ name, type, help: help!, labels }];
  });
}
