import { errnoName, NativeEvent } from '../../native/index.js';
import type {
  AcceptHandler,
  ConnectionHandler,
  Listener,
  ListenOptions,
  Timer,
  TlsOptions,
} from './types.js';

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
  readonly #maxHandshakes: number;
  #handshakes = 0;
  #isAsleep = false;
  #isPaused = false;
  #isStopped = false;

  constructor(
    options: { readonly handle: number; readonly tls: ListenOptions['tls']; readonly maxHandshakes: number },
    deps: { readonly home: ListenerHome; readonly handler: AcceptHandler },
  ) {
    this.#home = deps.home;
    this.handle = options.handle;
    this.#tls = options.tls;
    this.#maxHandshakes = options.maxHandshakes;
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

  /**
   * A handshake begins; it is over when its deadline, as returned, is cancelled, which happens once, however it ends. Strangers can begin as
   * many as they like, and each holds a descriptor and an SSL object: above the limit they wait in the backlog.
   */
  countHandshake(deadline: Timer): Timer {
    this.#handshakes++;
    this.#pauseOrResume();
    const cancel = () => {
      deadline.cancel();
      this.#handshakes--;
      this.#pauseOrResume();
    };
    return { cancel };
  }

  #backOff(errno: string): void {
    this.#home.acceptBackedOff(errno);
    this.#isAsleep = true;
    this.#pauseOrResume();
    this.#home.setTimer(BACK_OFF_MS, () => {
      this.#isAsleep = false;
      this.#pauseOrResume();
    });
  }

  #pauseOrResume(): void {
    const wanted = this.#isAsleep || this.#handshakes >= this.#maxHandshakes;
    if (this.#isStopped || wanted === this.#isPaused) return;
    this.#isPaused = wanted;
    this.#home.pauseListener(this.handle, wanted);
  }
}

/** Handler of a connection whose owner has not been asked yet. */
export const NOBODY: ConnectionHandler = {
  onConnected: () => {},
  onReadable: () => {},
  onDrained: () => {},
  onClosed: () => {},
};
