/**
 * Small programs for the pods' side. They are Python because it speaks to sockets as C does (MSG_FASTOPEN, bind before connect, MPTCP) and
 * starts in no time; each prints one JSON value.
 */
const prelude = `
import ctypes, errno, json, os, socket, struct, sys, time
V4, V6, TCP = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM
def show(a): return f'[{a[0]}]:{a[1]}' if ':' in a[0] else f'{a[0]}:{a[1]}'
def read(s):
    data = b''
    while True:
        piece = s.recv(65536)
        if not piece: return data
        data += piece
def sock(family=V4, proto=0):
    s = socket.socket(family, TCP, proto)
    s.settimeout(10)
    return s
def told(s):
    """What the listener says, and what the socket says of itself."""
    own = {'sockname': show(s.getsockname()), 'peername': show(s.getpeername())}
    return {**own, **json.loads(read(s))}
def attempt(address, family=V4, timeout=10):
    """'' or the name of the error of connect."""
    s = sock(family)
    s.settimeout(timeout)
    try: s.connect(address)
    except TimeoutError: return 'TIMEOUT'
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
    finally: s.close()
    return ''
def out(value): print(json.dumps(value), flush=True)
`;

/** Command line of a Python program with the helpers above. */
export function python(program: string, ...args: readonly string[]): string[] {
  return ['python3', '-c', `${prelude}\n${program}`, ...args];
}

/** libbpf's map calls for Python, on what is pinned in the folder `pins`. */
export const pythonBpf = `
bpf = ctypes.CDLL('libbpf.so.1', use_errno=True)
def pinned(path):
    fd = bpf.bpf_obj_get(path.encode())
    assert fd >= 0, path
    return fd
def endpoint(address, port):
    raw = socket.inet_pton(V6, address) if ':' in address else bytes(10) + b'\\xff\\xff' + socket.inet_aton(address)
    return raw + struct.pack('>H', port) + bytes(2)
def set_caller(storage, s, address, port):
    value = endpoint(address, port) + bytes(4)
    assert bpf.bpf_map_update_elem(storage, struct.pack('i', s.fileno()), value, ctypes.c_ulonglong(0)) == 0
def caller_state(storage, s):
    value = ctypes.create_string_buffer(24)
    assert bpf.bpf_map_lookup_elem(storage, struct.pack('i', s.fileno()), value) == 0
    return struct.unpack_from('I', value.raw, 20)[0]
`;
