import { option } from '../../mesh/config/index.js';

/** Of the commands that look at what an agent left in the kernel; as the agent's own option. */
export const bpffsOption = option.text({
  help: 'Where an agent of this node pins its programs.',
  metavar: 'DIR',
  fallback: '/sys/fs/bpf/culvert',
});
