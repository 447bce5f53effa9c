import type { NativeLibrary } from '../library.js';

/** The shim's calls for sockets in other network namespaces (native/shim/netns.c). Every one returns >= 0 or -errno. */
export function bindNetCalls({ bind }: NativeLibrary) {
  return {
    socket: bind<(netnsFd: number, family: number, type: number, protocol: number) => number>(
      'int culvert_net_socket(int netns_fd, int family, int type, int protocol)',
    ),
    cookie: bind<(netnsFd: number, cookie: Buffer) => number>(
      'int culvert_net_cookie(int netns_fd, uint8_t *cookie)',
    ),
    readSwitches: bind<(netnsFd: number, paths: Buffer, count: number, out: Buffer) => number>(
      'int culvert_net_read_switches(int netns_fd, const uint8_t *paths, int count, uint8_t *out)',
    ),
    udp: bind<(netnsFd: number, address: Uint8Array, bytes: number, port: number) => number>(
      'int culvert_net_udp(int netns_fd, const uint8_t *address, int bytes, int port)',
    ),
    readAs: bind<(pid: number, path: string, out: Buffer, size: number) => number>(
      'int culvert_net_read_as(int pid, const char *path, uint8_t *out, uint32_t size)',
    ),
    listen: bind<(netnsFd: number, family: number, port: number, backlog: number) => number>(
      'int culvert_net_listen(int netns_fd, int family, int port, int backlog)',
    ),
    tcpList: bind<(fd: number, family: number, states: number, out: Buffer, room: number) => number>(
      'int culvert_net_tcp_list(int fd, int family, uint32_t states, uint8_t *out, uint32_t room)',
    ),
    tcpDestroy: bind<(fd: number, record: Buffer) => number>(
      'int culvert_net_tcp_destroy(int fd, const uint8_t *record)',
    ),
  };
}

export type NetCalls = ReturnType<typeof bindNetCalls>;
