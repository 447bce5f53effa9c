import { readFileSync } from 'node:fs';
import { type LabProcess, outputIn, type Place, spawnIn } from './process.js';

export interface CaptureOptions {
  /** Interface; by default the node's uplink, which is the wire between nodes. */
  readonly device?: string;
  /** tcpdump filter. */
  readonly filter?: string;
}

/** A running or stopped tcpdump and its file. */
export class PacketCapture {
  readonly file: string;
  #place: Place;
  #process: LabProcess;

  private constructor(file: string, place: Place, process: LabProcess) {
    this.file = file;
    this.#place = place;
    this.#process = process;
  }

  /** Resolves once packets are being captured. */
  static async start(place: Place, file: string, options: CaptureOptions = {}): Promise<PacketCapture> {
    const device = options.device ?? 'eth0';
    const command = [
      'tcpdump',
      '-i',
      device,
      '-s',
      '0',
      '-B',
      '16384',
      '--immediate-mode',
      '-U',
      '-Z',
      'root',
    ];
    const process = spawnIn(place, [...command, '-w', file, options.filter ?? '']);
    await process.waitForOutput(/listening on/);
    return new PacketCapture(file, place, process);
  }

  /** Ends the capture; throws where the kernel dropped packets, since then the file proves nothing. */
  async stop(): Promise<void> {
    const result = await this.#process.stop('SIGINT');
    const dropped = /(\d+) packets? dropped by kernel/.exec(result.stderr)?.[1];
    if (dropped !== '0') throw new Error(`tcpdump lost packets or failed: ${result.stderr}`);
  }

  /** True if the bytes stand anywhere in the captured packets; text that two packets share is not found, so keep it short. */
  contains(bytes: string | Uint8Array): boolean {
    return readFileSync(this.file).includes(typeof bytes === 'string' ? bytes : Buffer.from(bytes));
  }

  /** One line of `tcpdump -nn` a packet. */
  async packets(filter = ''): Promise<string[]> {
    const text = await outputIn(this.#place, ['tcpdump', '-nn', '-r', this.file, filter]);
    return text.split('\n').filter(Boolean);
  }

  /** Number of packets that match. */
  async count(filter = ''): Promise<number> {
    return (await this.packets(filter)).length;
  }

  /** True while tcpdump runs. */
  get running(): boolean {
    return this.#process.running;
  }
}
