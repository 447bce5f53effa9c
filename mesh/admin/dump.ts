const SECRET_NAME = /token|secret|password|private|credential|pkcs|keypem|^authorization$/i;
const SECRET_TEXT = /-----BEGIN [A-Z ]*PRIVATE KEY-----|\bBearer [\w.~+/-]+=*|\beyJ[\w-]+\.[\w-]+\.[\w-]*/g;
const HIDDEN = '(hidden)';

/**
 * JSON of anything, for people: Maps as objects, Sets as lists, bigints as text, errors by message, binary by length (a key in DER
 * looks like any other). What has the name or the look of a secret is left out, wherever it stands: a second line of defence behind
 * providers that do not hand it over.
 */
export function dumpJson(value: unknown): string {
  return `${JSON.stringify(value, replace, 2) ?? 'null'}\n`;
}

function replace(this: unknown, name: string, after: unknown): unknown {
  // Not `after`: Buffer and Date have been through toJSON by now.
  const value = (this as Record<string, unknown>)[name];
  if (isSecret(name, value)) return HIDDEN;
  if (typeof value === 'string') return value.replace(SECRET_TEXT, HIDDEN);
  if (typeof value === 'bigint') return value.toString();
  if (ArrayBuffer.isView(value)) return `(${value.byteLength} bytes)`;
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [String(key), item]));
  if (value instanceof Set) return [...value];
  if (value instanceof Error) return value.message;
  return after;
}

/** A text, by its name, unless that is the name of a file. Objects are looked into instead: a workload may be called `token-service`. */
function isSecret(name: string, value: unknown): boolean {
  return typeof value === 'string' && SECRET_NAME.test(name) && !/(file|path|dir|directory)$/i.test(name);
}
