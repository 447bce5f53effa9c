import { errnoName } from './engine.js';
import { NativeError } from './errors.js';
import { type NativeLibrary, openLibrary } from './library.js';

const ERROR_BYTES = 512;

/** SSL contexts of this process, by number. */
export class NativeTlsContexts {
  readonly #create: (
    chain: Buffer,
    chainBytes: number,
    key: Buffer,
    keyBytes: number,
    roots: Buffer,
    rootsBytes: number,
    error: Buffer,
    errorBytes: number,
  ) => number;
  readonly #release: (id: number) => number;

  constructor(library: NativeLibrary = openLibrary()) {
    this.#create = library.bind(
      'int culvert_tls_context(uint8_t *chain, int chainBytes, uint8_t *key, int keyBytes, uint8_t *roots, int rootsBytes, uint8_t *error, int errorBytes)',
    );
    this.#release = library.bind('int culvert_tls_context_release(int id)');
  }

  /** `chain` and `roots`: DER certificates one behind the other; `key`: PKCS#8 DER. Throws TLS_MATERIAL with what is wrong. */
  create(chain: Buffer, key: Buffer, roots: Buffer): number {
    const error = Buffer.alloc(ERROR_BYTES);
    const id = this.#create(chain, chain.length, key, key.length, roots, roots.length, error, error.length);
    if (id > 0) return id;
    const text = error.toString('utf8', 0, Math.max(0, error.indexOf(0)));
    throw new NativeError('TLS_MATERIAL', text === '' ? `no TLS context: ${errnoName(-id)}` : text);
  }

  /** Open connections keep the context until they end. Unknown ids are ignored. */
  release(id: number): void {
    this.#release(id);
  }
}
