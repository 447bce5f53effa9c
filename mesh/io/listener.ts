import { errnoName, NativeEvent } from '../../native/index.js';
import type { AcceptHandler, Listener, ListenOptions, TlsOptions } from './types.js';

/** After EMFILE, ENFILE, ENOMEM or ENOBUFS a listener sleeps for this long: what waits stays in its backlog, and nothing spins. */
const BACK_OFF_MS = 50;

/** What a listener needs of its reactor. */
export interface ListenerHome {
  /** Accepts what fits into one turn and registers it; the number accepted, or -errno. */
  acceptAll(listener: EngineListener, tls: TlsOptions | null): number;
  pauseListener(handle: number, paused: boolean): void;
  closeListener(handle: number): void;
  setTimer(delayMs: number, callback: () => void): void;
  acceptBackedOff(errno: string): void;
}

/** One listening socket of a reactor; the socket itself is the main thread's. */
export class EngineListener implements Listener {
  readonly handle: number;
  readonly handler: AcceptHandler;
  readonly #home: ListenerHome;
  readonly #tls: ListenOptions['tls'];
  #isStopped = false;

  constructor(
    options: { readonly handle: number; readonly tls: ListenOptions['tls'] },
    deps: { readonly home: ListenerHome; readonly handler: AcceptHandler },
  ) {
    this.#home = deps.home;
    this.handle = options.handle;
    this.#tls = options.tls;
    this.handler = deps.handler;
  }

  /** True where connections start with a TLS handshake; without material at hand they are reset. */
  get isTls(): boolean {
    return this.#tls !== undefined;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  onEvent(events: number): void {
    if (this.#isStopped || (events & NativeEvent.ACCEPTABLE) === 0) return;
    const result = this.#home.acceptAll(this, this.#tls?.() ?? null);
    if (result < 0) this.#backOff(errnoName(-result));
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#home.closeListener(this.handle);
  }

  #backOff(errno: string): void {
    this.#home.acceptBackedOff(errno);
    if (this.#isStopped) return;
    this.#home.pauseListener(this.handle, true);
    this.#home.setTimer(BACK_OFF_MS, () => {
      if (!this.#isStopped) this.#home.pauseListener(this.handle, false);
    });
  }
}
