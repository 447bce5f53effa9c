/** For a terminal: what a peer or a manifest named must neither move the cursor of the person who reads it nor turn the line around. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '\u{fffd}');
}
