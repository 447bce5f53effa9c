/** What a reactor has done so far; plain numbers, read them when you like. */
export interface ReactorCounters {
  turns: number;
  accepted: number;
  dialled: number;
  /** TLS handshakes that a peer or a deadline ended. */
  handshakesFailed: number;
  /** Of accepted connections: begun. */
  handshakesAccepted: number;
  closed: number;
  /** Ended by our RST. */
  reset: number;
  /** Ended by the peer, the network, a deadline or a limit. */
  failed: number;
  /** Exceptions that left a callback. */
  exceptions: number;
  /** Times that a listener slept for want of descriptors or memory. */
  acceptBackOffs: number;
}

export function newReactorCounters(): ReactorCounters {
  return {
    turns: 0,
    accepted: 0,
    dialled: 0,
    handshakesFailed: 0,
    handshakesAccepted: 0,
    closed: 0,
    reset: 0,
    failed: 0,
    exceptions: 0,
    acceptBackOffs: 0,
  };
}
