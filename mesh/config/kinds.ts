import { type SocketAddress, tryParseSocketAddress } from '../common/address.js';
import type { OptionSpec } from './types.js';

interface Common<Value> {
  readonly help: string;
  readonly fallback?: Value;
  readonly env?: string;
}

/** Makers of `OptionSpec`s. Each checks its own range. */
export const option = {
  text(
    spec: Common<string> & { readonly metavar?: string; readonly check?: (text: string) => string | null },
  ) {
    return make(spec, spec.metavar ?? 'TEXT', (text) => {
      if (text === '') throw new Error('must not be empty');
      const problem = spec.check?.(text) ?? null;
      if (problem !== null) throw new Error(problem);
      return text;
    });
  },

  /** Comma-separated; empty text is the empty list. */
  list(
    spec: Common<readonly string[]> & {
      readonly metavar?: string;
      /** Of each item. */
      readonly check?: (item: string) => string | null;
    },
  ) {
    return make(spec, spec.metavar ?? 'A,B,…', (text) => {
      const items = text === '' ? [] : text.split(',').map((item) => item.trim());
      for (const item of items) {
        const problem = spec.check?.(item) ?? null;
        if (problem !== null) throw new Error(problem);
      }
      return items;
    });
  },

  /** A whole number in [min, max]. */
  integer(spec: Common<number> & { readonly min: number; readonly max: number }) {
    return make(spec, 'N', (text) => {
      const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
      if (!(value >= spec.min && value <= spec.max))
        throw new Error(`must be a whole number from ${spec.min} to ${spec.max}, not '${text}'`);
      return value;
    });
  },

  /** `500ms`, `30s`, `15m`, `24h`; the value is milliseconds. */
  duration(spec: Common<number> & { readonly minMs: number; readonly maxMs: number }) {
    const shown = spec.fallback === undefined ? {} : { fallbackText: durationText(spec.fallback) };
    return make({ ...spec, ...shown }, 'DURATION', (text) => {
      const parts = /^(\d+)(ms|s|m|h)$/.exec(text);
      const value = parts === null ? Number.NaN : Number(parts[1]) * MS_PER[parts[2]!]!;
      if (!(value >= spec.minMs && value <= spec.maxMs))
        throw new Error(
          `must be a duration from ${durationText(spec.minMs)} to ${durationText(spec.maxMs)} like 30s, not '${text}'`,
        );
      return value;
    });
  },

  choice<const Value extends string>(spec: Common<Value> & { readonly of: readonly Value[] }) {
    return make<Value>(spec, spec.of.join('|'), (text) => {
      const value = spec.of.find((known) => known === text);
      if (value === undefined) throw new Error(`must be one of ${spec.of.join(', ')}, not '${text}'`);
      return value;
    });
  },

  /** `ip:port`; the port may be 0 for "any free one". */
  socketAddress(spec: Common<SocketAddress>) {
    return make(spec, 'IP:PORT', (text) => {
      const value = tryParseSocketAddress(text);
      if (value === null) throw new Error(`must be ip:port or [ipv6]:port, not '${text}'`);
      return value;
    });
  },

  /** A switch: `--name`, or `true`/`false` in the environment and as `--name=false`. */
  flag(spec: Common<boolean>) {
    return make({ fallback: false, ...spec }, null, (text) => {
      if (text !== 'true' && text !== 'false') throw new Error(`must be true or false, not '${text}'`);
      return text === 'true';
    });
  },
};

const MS_PER: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

function make<Value>(
  spec: Common<Value> & { readonly fallbackText?: string },
  metavar: string | null,
  parse: (text: string) => Value,
): OptionSpec<Value> {
  return {
    parse,
    metavar,
    help: spec.help,
    ...(spec.fallback === undefined ? {} : { fallback: spec.fallback }),
    ...(spec.env === undefined ? {} : { env: spec.env }),
    ...(spec.fallbackText === undefined ? {} : { fallbackText: spec.fallbackText }),
  };
}

/** In the largest unit that leaves it whole: `24h`, `90s`, `0ms`. */
function durationText(ms: number): string {
  const units = Object.entries(MS_PER).reverse();
  const [unit, size] = units.find(([, size]) => ms >= size && ms % size === 0) ?? ['ms', 1];
  return `${ms / size}${unit}`;
}
