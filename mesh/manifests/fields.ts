import { tryCanonicalAddress } from '../common/address.js';
import type { FieldPath, FieldProblem, Remark } from './types.js';

/**
 * Reads untyped manifest fields and collects what is wrong. A getter whose field is bad records the problem and returns its empty value;
 * whoever decodes looks at `problems` at the end. Null counts as absent, as in Kubernetes.
 */
export class Fields {
  readonly problems: FieldProblem[];
  readonly path: FieldPath;
  /** What is worth telling though nothing is wrong with the object's form. */
  readonly remarks: Remark[];
  readonly #value: Readonly<Record<string, unknown>>;

  constructor(value: unknown, path: FieldPath = [], problems: FieldProblem[] = [], remarks: Remark[] = []) {
    this.path = path;
    this.problems = problems;
    this.remarks = remarks;
    const absent = value === undefined || value === null;
    if (!absent && !isRecord(value)) this.#wrong(path, 'must be an object');
    this.#value = isRecord(value) ? value : {};
  }

  /** The fields that are there. */
  get keys(): readonly string[] {
    return Object.keys(this.#value).filter((field) => this.has(field));
  }

  /** All of it as JSON, its fields in the order in which they came. */
  get json(): string {
    return JSON.stringify(this.#value);
  }

  has(field: string): boolean {
    return this.#value[field] !== undefined && this.#value[field] !== null;
  }

  /** Holds the object to these fields: another one is a problem, and so is one without a value, which would read as absent. */
  only(fields: readonly string[]): this {
    for (const [field, value] of Object.entries(this.#value)) {
      if (value === null) this.wrong(field, 'has no value');
      else if (!fields.includes(field))
        this.wrong(field, `is not known; known here are ${fields.join(', ')}`);
    }
    return this;
  }

  /** The object in `field`; reads as empty where it is absent. */
  object(field: string): Fields {
    return new Fields(this.#value[field], [...this.path, field], this.problems, this.remarks);
  }

  /** The objects of the list in `field`. */
  objects(field: string): readonly Fields[] {
    return this.#list(field).map((item, index) => {
      if (item === null) this.#wrong([...this.path, field, index], 'must be an object, not null');
      return new Fields(item, [...this.path, field, index], this.problems, this.remarks);
    });
  }

  text(field: string): string {
    const value = this.#value[field];
    if (value === undefined || value === null) return '';
    if (typeof value === 'string') return value;
    this.wrong(field, `must be a text, not ${describe(value)}`);
    return '';
  }

  texts(field: string): readonly string[] {
    return this.#list(field).map((item, index) => {
      if (typeof item === 'string') return item;
      this.#wrong([...this.path, field, index], `must be a text, not ${describe(item)}`);
      return '';
    });
  }

  /** A map of texts: labels, annotations, selectors. */
  textMap(field: string): Readonly<Record<string, string>> {
    const map: [string, string][] = [];
    for (const [key, value] of Object.entries(this.object(field).#value)) {
      if (typeof value === 'string') map.push([key, value]);
      else this.#wrong([...this.path, field, key], `must be a text, not ${describe(value)}; quote it`);
    }
    return Object.fromEntries(map);
  }

  flag(field: string): boolean {
    const value = this.#value[field] ?? false;
    if (typeof value !== 'boolean') this.wrong(field, `must be true or false, not ${describe(value)}`);
    return value === true;
  }

  /** A whole number within the bounds; null where absent or wrong. */
  integer(field: string, least: number, most: number): number | null {
    const value = this.#value[field];
    if (value === undefined || value === null) return null;
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
    this.wrong(field, `must be a whole number from ${least} to ${most}, not ${describe(value)}`);
    return null;
  }

  choice<const Value extends string>(field: string, of: readonly Value[], fallback: Value): Value {
    const text = this.text(field);
    const value = text === '' ? fallback : of.find((known) => known === text);
    if (value === undefined) this.wrong(field, `must be one of ${of.join(', ')}, not '${text}'`);
    return value ?? fallback;
  }

  /** 1-65535; 0 where absent. */
  port(field: string): number {
    const value = this.#value[field];
    if (value === undefined || value === null) return 0;
    if (isPort(value)) return value;
    this.wrong(field, `must be a port from 1 to 65535, not ${describe(value)}`);
    return 0;
  }

  /** A port number, or the name of one; undefined where absent. */
  portOrName(field: string): number | string | undefined {
    const value = this.#value[field];
    if (value === undefined || value === null || isPort(value)) return value ?? undefined;
    if (
      typeof value === 'string' &&
      /^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/.test(value) &&
      /[a-z]/.test(value)
    )
      return value;
    this.wrong(field, `must be a port from 1 to 65535 or the name of a port, not ${describe(value)}`);
    return undefined;
  }

  /** Canonical text of the IP address in `field`; '' where absent. */
  address(field: string): string {
    const text = this.text(field);
    return text === '' ? '' : this.#canonical(text, [...this.path, field]);
  }

  addresses(field: string): readonly string[] {
    return this.texts(field).map((text, index) => this.#canonical(text, [...this.path, field, index]));
  }

  /** A DNS-1123 label (namespaces, services) or subdomain (pods, accounts, nodes); `fallback` where absent. */
  name(field: string, form: 'label' | 'subdomain', fallback = ''): string {
    const text = this.text(field);
    if (text === '') return fallback;
    if (!(form === 'label' ? isLabel(text) : text.length <= 253 && text.split('.').every(isLabel)))
      this.wrong(field, `must be a DNS ${form} of lower-case letters, digits and '-', not '${text}'`);
    return text;
  }

  wrong(field: string, reason: string): void {
    this.#wrong([...this.path, field], reason);
  }

  /** The object stays valid. */
  remark(field: string, what: Omit<Remark, 'path'>): void {
    this.remarks.push({ path: [...this.path, field], ...what });
  }

  #list(field: string): readonly unknown[] {
    const value = this.#value[field] ?? [];
    if (Array.isArray(value)) return value;
    this.wrong(field, `must be a list, not ${describe(value)}`);
    return [];
  }

  #canonical(text: string, path: FieldPath): string {
    const address = tryCanonicalAddress(text);
    if (address === null) this.#wrong(path, `must be an IP address, not '${text}'`);
    return address ?? '';
  }

  #wrong(path: FieldPath, reason: string): void {
    this.problems.push({ path, reason });
  }
}

/** `spec.ports[0].port`; keys that are no plain words are quoted. */
export function formatPath(path: FieldPath): string {
  return path
    .map((step) => {
      if (typeof step === 'number') return `[${step}]`;
      return /^[A-Za-z_][A-Za-z0-9_]*$/.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
    })
    .join('')
    .replace(/^\./, '');
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isLabel(text: string): boolean {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text);
}

function isPort(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 65535;
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' && value !== null ? 'an object' : (JSON.stringify(value) ?? String(value));
}
