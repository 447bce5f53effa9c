import { readdirSync, readFileSync } from 'node:fs';
import { labelsText } from './exposition.js';
import type { MetricFamily, MetricSource } from './types.js';

/** Version, descriptors, memory and CPU of this process, under the names that Prometheus clients and ztunnel use. */
export function processMetrics(build: { readonly component: string; readonly tag: string }): MetricSource {
  const buildLabels = labelsText(['component', 'tag'], [build.component, build.tag]);
  return () => {
    const cpu = process.cpuUsage();
    return [
      gauge('istio_build', 'Component build info', 1, buildLabels),
      gauge('process_open_fds', 'Open file descriptors', readdirSync('/proc/self/fd').length),
      gauge('process_max_fds', 'Limit of open file descriptors', maxDescriptors()),
      gauge('process_resident_memory_bytes', 'Resident memory', process.memoryUsage.rss()),
      gauge(
        'process_start_time_seconds',
        'Start time since the epoch',
        Math.round(performance.timeOrigin / 1000),
      ),
      { ...gauge('process_cpu_seconds_total', 'CPU time', (cpu.user + cpu.system) / 1e6), type: 'counter' },
    ];
  };
}

function gauge(name: string, help: string, value: number, labels = ''): MetricFamily {
  return { name, help, type: 'gauge', samples: [{ labels, value }] };
}

function maxDescriptors(): number {
  const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
}
