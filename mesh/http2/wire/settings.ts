import { ConnectionError } from '../errors.js';
import { ErrorCode } from '../types.js';
import {
  DEFAULT_HEADER_TABLE_BYTES,
  DEFAULT_WINDOW_BYTES,
  MAX_MAX_FRAME_BYTES,
  MAX_WINDOW_BYTES,
  MIN_MAX_FRAME_BYTES,
  readUint32,
  Setting,
} from './frame.js';

/** Concurrent streams assumed until the peer's SETTINGS tell: what RFC 9113 section 6.5.2 recommends as the least. */
const STREAMS_BEFORE_SETTINGS = 100;
const UNLIMITED = 0xffffffff;

function check(holds: boolean, code: ErrorCode, what: string): void {
  if (!holds) throw new ConnectionError(code, `bad ${what} in SETTINGS`);
}

/** The peer's SETTINGS, with the initial values of RFC 9113 section 6.5.2. */
export class PeerSettings {
  private readonly ofServer: boolean;
  headerTableBytes = DEFAULT_HEADER_TABLE_BYTES;
  maxConcurrentStreams = STREAMS_BEFORE_SETTINGS;
  initialWindowBytes = DEFAULT_WINDOW_BYTES;
  maxFrameBytes = MIN_MAX_FRAME_BYTES;
  /** Advice only (section 6.5.2). */
  maxHeaderListBytes = UNLIMITED;
  allowsExtendedConnect = false;
  /** At least one SETTINGS frame came. */
  received = false;

  /** `ofServer`: the peer is the server. */
  constructor(ofServer: boolean) {
    this.ofServer = ofServer;
  }

  /** Applies the payload [start, end) of one SETTINGS frame, in order. Throws the connection error for a bad value. */
  apply(bytes: Buffer, start: number, end: number): void {
    if (!this.received) this.maxConcurrentStreams = UNLIMITED;
    this.received = true;
    for (let at = start; at < end; at += 6) {
      this.set((bytes[at]! << 8) | bytes[at + 1]!, readUint32(bytes, at + 2));
    }
  }

  private set(id: number, value: number): void {
    switch (id) {
      case Setting.HEADER_TABLE_SIZE:
        this.headerTableBytes = value;
        break;
      case Setting.ENABLE_PUSH:
        check(value === 0 || (value === 1 && !this.ofServer), ErrorCode.PROTOCOL_ERROR, 'ENABLE_PUSH');
        break;
      case Setting.MAX_CONCURRENT_STREAMS:
        this.maxConcurrentStreams = value;
        break;
      case Setting.INITIAL_WINDOW_SIZE:
        check(value <= MAX_WINDOW_BYTES, ErrorCode.FLOW_CONTROL_ERROR, 'INITIAL_WINDOW_SIZE');
        this.initialWindowBytes = value;
        break;
      case Setting.MAX_FRAME_SIZE: {
        const fits = value >= MIN_MAX_FRAME_BYTES && value <= MAX_MAX_FRAME_BYTES;
        check(fits, ErrorCode.PROTOCOL_ERROR, 'MAX_FRAME_SIZE');
        this.maxFrameBytes = value;
        break;
      }
      case Setting.MAX_HEADER_LIST_SIZE:
        this.maxHeaderListBytes = value;
        break;
      case Setting.ENABLE_CONNECT_PROTOCOL: {
        const fits = value === 1 || (value === 0 && !this.allowsExtendedConnect);
        check(fits, ErrorCode.PROTOCOL_ERROR, 'ENABLE_CONNECT_PROTOCOL');
        this.allowsExtendedConnect = value === 1;
        break;
      }
      default: // section 6.5.2: unknown settings are ignored
    }
  }
}
