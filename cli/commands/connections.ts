import { option } from '../../mesh/config/index.js';
import { command } from '../command.js';
import { formatAge, formatBytes, renderTable } from '../output.js';

/** A row of the agent's /connections (agent/tunnel/messages.ts). */
interface Connection {
  readonly direction: 'inbound' | 'outbound';
  readonly source: string;
  readonly destination: string;
  readonly pod: string;
  readonly via: string;
  readonly ageMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

type Order = (a: Connection, b: Connection) => number;

const orders: Readonly<Record<'age' | 'bytes' | 'in' | 'out' | 'pod', Order>> = {
  age: (a, b) => b.ageMs - a.ageMs,
  bytes: (a, b) => b.bytesIn + b.bytesOut - a.bytesIn - a.bytesOut,
  in: (a, b) => b.bytesIn - a.bytesIn,
  out: (a, b) => b.bytesOut - a.bytesOut,
  pod: (a, b) => a.pod.localeCompare(b.pod),
};

const head = ['POD', 'DIRECTION', 'VIA', 'AGE', 'RECEIVED', 'SENT', 'SOURCE', 'DESTINATION'];

export const connections = command({
  path: 'connections',
  summary: 'Connections that are open now, through this agent.',
  options: {
    sort: option.choice({
      help: 'The largest first; pods by name.',
      fallback: 'age',
      of: ['age', 'bytes', 'in', 'out', 'pod'],
    }),
    pod: option.text({ help: 'Only those of this pod.', metavar: 'NAMESPACE/NAME', fallback: '' }),
    limit: option.integer({ help: 'At most so many.', fallback: 1000, min: 1, max: 1_000_000 }),
    watch: option.flag({ help: 'Again every second, until Ctrl-C; with -o json a line each time.' }),
  },
  examples: [
    'culvertctl connections --sort bytes --limit 20',
    'culvertctl connections --pod shop/cart-1 -o json',
    'culvertctl connections --watch',
  ],
  async run({ sort, pod, limit, watch }, { agent, terminal, output }) {
    for (;;) {
      const all = (await agent.json('/connections')) as readonly Connection[];
      const shown = all
        .filter((connection) => pod === '' || connection.pod === pod)
        .toSorted(orders[sort])
        .slice(0, limit);
      const result = { json: shown, tables: [{ rows: [head, ...shown.map(rowOf)] }] };
      if (!watch) return result;
      terminal.out(
        output === 'json'
          ? `${JSON.stringify(shown)}\n`
          : `\x1b[H\x1b[2J${renderTable(result.tables[0]!.rows, terminal.columns)}`,
      );
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  },
});

function rowOf(connection: Connection): string[] {
  const { pod, direction, via, ageMs, bytesIn, bytesOut, source, destination } = connection;
  return [
    pod,
    direction,
    via,
    formatAge(ageMs),
    formatBytes(bytesIn),
    formatBytes(bytesOut),
    source,
    destination,
  ];
}
