import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SocketAddress } from '../../../mesh/common/address.js';
import { type Bed, type RunningPeer, waitUntilServing } from '../bed.js';

/** Where the client's proxy listens in the client's pod, and the server's proxy in the server's pod. */
export const CLIENT_LISTEN: SocketAddress = { address: '127.0.0.1', port: 15101 };
export const SERVER_PORT = 15443;

/** Starts two proxies with a configuration file each, the server's first. `command` gives a proxy's command line for its file. */
export async function startPair(
  bed: Bed,
  name: string,
  configs: { readonly client: string; readonly server: string },
  command: (file: string) => readonly string[],
  extension = 'conf',
): Promise<RunningPeer> {
  const launch = (side: 'client' | 'server') => {
    const file = join(bed.folder, `${name}-${side}.${extension}`);
    writeFileSync(file, configs[side]);
    return bed[side].spawn(command(file));
  };
  const proxies = [launch('server'), launch('client')];
  const stop = async (): Promise<void> => {
    await Promise.all(proxies.map((proxy) => proxy.stop()));
  };
  try {
    await waitUntilServing(bed, CLIENT_LISTEN, name);
  } catch (thrown) {
    await stop();
    throw new Error(`${name} does not serve: ${proxies.map((proxy) => proxy.stderr).join('\n')}`, {
      cause: thrown,
    });
  }
  return { target: CLIENT_LISTEN, proxies, stop };
}
