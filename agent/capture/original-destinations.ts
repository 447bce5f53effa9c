/** Where a connection accepted on 15001 wanted to go: BPF's map, read once per connection. */
import { isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import type { CaptureHandles, OriginalDestinations } from './types.js';
