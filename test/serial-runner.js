// Runner of the tiers that share the kernel (BPF, network namespaces, load): one file at a time, while unit tests run in parallel.
import JestRunner from 'jest-runner';

export default class SerialRunner extends JestRunner {
  isSerial = true;
}
