import type { Log } from '../../mesh/log/index.js';
import type { Bpf, KernelFeature } from '../../native/bpf/index.js';
import { CaptureError } from './types.js';

/** Lists what the kernel has. Throws KERNEL_TOO_OLD: half a capture would leak. */
export function requireFeatures(bpf: Bpf, log: Log): readonly KernelFeature[] {
  const features = bpf.probe();
  const absent = features.filter(({ present }) => !present);
  const describe = ({ name, since, neededFor }: KernelFeature) => `${name} (Linux ${since}; ${neededFor})`;
  const missing = absent.filter(({ without }) => without === 'refused').map(describe);
  const fallbacks = absent.filter(({ without }) => without !== 'refused');
  log.info(
    {
      there: features.filter(({ present }) => present).map(({ name }) => name),
      fallback: fallbacks.map((feature) => `${describe(feature)}: ${feature.without}`),
      refused: missing,
    },
    'kernel features',
  );
  if (missing.length === 0) return features;
  throw new CaptureError('KERNEL_TOO_OLD', `the kernel lacks ${missing.join(', ')}`, { missing });
}
