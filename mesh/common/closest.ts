/** Which of the words somebody who wrote `text` most likely meant; null: none is near. Of every six letters one may differ (one always, `most` at most); case does not count. */
export function closest(text: string, words: Iterable<string>, most = 3): string | null {
  let found: string | null = null;
  let least = Math.min(most, Math.max(1, Math.floor(text.length / 6))) + 1;
  for (const word of words) {
    if (Math.abs(text.length - word.length) >= least) continue; // whatever a manifest says may be long
    const distance = editDistance(text.toLowerCase(), word.toLowerCase());
    if (distance >= least) continue;
    found = word;
    least = distance;
  }
  return found;
}

/** Letters to add, drop or change (Levenshtein); two that are swapped count as one. */
function editDistance(a: string, b: string): number {
  let [beforeLast, last]: [number[], number[]] = [[], Array.from({ length: b.length + 1 }, (_, i) => i)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(last[j]! + 1, row[j - 1]! + 1, change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j]!, beforeLast[j - 2]! + 1);
    }
    [beforeLast, last] = [last, row];
  }
  return last[b.length]!;
}
