/** FNV-1a over UTF-16 code units: spreads texts over 32 bits. Not for what an enemy may choose. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** 32 well mixed bits of two (the finaliser of MurmurHash3). */
export function mix(a: number, b: number): number {
  let bits = Math.imul(a, 0x9e3779b1) ^ b;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
