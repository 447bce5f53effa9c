import { existsSync } from 'node:fs';
import { join } from 'node:path';
import koffi, { type LibraryHandle } from 'koffi';
import { messageOf } from '../mesh/common/errors.js';
import { NativeError } from './errors.js';
import { packageRoot } from './package-root.js';

const ABI_VERSION = 1;

/** The C library of native/shim, loaded into this thread. One file stays one library in the process, however often it is opened. */
export interface NativeLibrary {
  /**
   * Binds one C function. `prototype` is a C declaration as koffi reads it, e.g. `int culvert_x(int fd, uint8_t *bytes)`; a Buffer given for
   * `uint8_t *` is passed in place and pinned for the call only.
   */
  bind<F extends (...args: never[]) => unknown>(prototype: string): F;
}

/** Path of the built library; CULVERT_NATIVE_LIBRARY names another build (the sanitizer tier's). */
export function libraryPath(): string {
  return process.env['CULVERT_NATIVE_LIBRARY'] ?? join(packageRoot(), 'native/build/culvert-native.so');
}

/** Loads the library. Throws NativeError that says how to mend it. */
export function openLibrary(path: string = libraryPath()): NativeLibrary {
  if (!existsSync(path)) {
    throw new NativeError(
      'LIBRARY_MISSING',
      `${path} is missing: run \`make -C native\` (or \`npm run build\`)`,
      { path },
    );
  }
  const handle = load(path);
  const version = handle.func('int culvert_abi_version()')() as number;
  if (version !== ABI_VERSION) {
    throw new NativeError(
      'LIBRARY_UNUSABLE',
      `${path} has version ${version}, not ${ABI_VERSION}: run \`make -C native\``,
      { path },
    );
  }
  return { bind: <F>(prototype: string) => handle.func(prototype) as F };
}

function load(path: string): LibraryHandle {
  try {
    return koffi.load(path);
  } catch (cause) {
    throw explain(path, cause);
  }
}

/** dlopen's message names the symbol or library that is missing; what to do about it depends on which. */
function explain(path: string, cause: unknown): NativeError {
  const message = messageOf(cause);
  const data = { path, node: process.version, openssl: process.versions.openssl };
  if (/undefined symbol: (SSL|BIO|X509|ERR|OPENSSL|OpenSSL|CRYPTO|TLS|EVP|d2i|i2d)/.test(message)) {
    return new NativeError(
      'OPENSSL_SYMBOLS_MISSING',
      `this Node (${process.version}, ${process.execPath}) does not export the OpenSSL 3 symbols that the mesh uses: run an official Node.js build, 20.19 or newer (${message})`,
      data,
      cause,
    );
  }
  if (message.includes('libbpf')) {
    return new NativeError(
      'LIBRARY_UNUSABLE',
      `libbpf is missing: apt-get install libbpf1 (${message})`,
      data,
      cause,
    );
  }
  return new NativeError('LIBRARY_UNUSABLE', `${path} does not load: ${message}`, data, cause);
}
