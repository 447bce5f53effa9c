/**
 * Base of every error that Culvert raises on purpose. `code` comes from a closed union per room and stands in
 * docs/errors.md; `data` carries what a person needs to find the object at fault.
 */
export class MeshError<Code extends string = string> extends Error {
  readonly code: Code;
  readonly data: Readonly<Record<string, unknown>>;

  constructor(code: Code, message: string, data: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.data = data;
  }
}

/** The message of anything that was thrown. By shape, not `instanceof`: errors of Node's own modules have another realm's class inside a vm (jest). */
export function messageOf(thrown: unknown): string {
  const message =
    typeof thrown === 'object' && thrown !== null && 'message' in thrown ? thrown.message : thrown;
  return String(message);
}
