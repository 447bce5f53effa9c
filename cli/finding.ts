/** One line of `culvertctl doctor`. */
export interface Finding {
  readonly check: string;
  readonly verdict: 'ok' | 'warning' | 'fails';
  readonly found: string;
  /** What to do about it. */
  readonly advice: string;
}

export function finding(check: string, verdict: Finding['verdict'], found: string, advice: string): Finding {
  return { check, verdict, found, advice };
}
