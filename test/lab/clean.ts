// `npm run clean`: removes every lab on this machine, whoever made it, with its processes, namespaces, cgroups and pinned BPF objects.
import { sweep } from './sweep.js';

const removed = sweep('all');
process.stdout.write(
  removed.length === 0 ? 'no lab was left\n' : `removed ${removed.length} labs: ${removed.join(', ')}\n`,
);
