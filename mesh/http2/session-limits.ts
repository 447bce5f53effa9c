/**
 * What a peer may do to a session before it loses it (GOAWAY ENHANCE_YOUR_CALM). `…Burst` and `…PerSecond` are a token bucket: as many at once,
 * refilled at that rate. The rates bound our CPU, the byte limits our memory; both lie far above what well-meant peers do.
 */
export interface SessionLimits {
  /** Requests that the peer resets before our response headers (rapid reset, CVE-2023-44487). A mesh's clients do give up on slow dials, in bunches. */
  readonly prematureResetsBurst: number;
  readonly prematureResetsPerSecond: number;
  /** Stream errors that the peer provokes (MadeYouReset, CVE-2025-8671): our RST_STREAM frees its stream while we may still be at work. No sound peer causes any. */
  readonly streamErrorsBurst: number;
  readonly streamErrorsPerSecond: number;
  /** Requests refused (beyond our concurrent streams, or by the owner). A client may send a whole first flight before it knows our SETTINGS. */
  readonly refusedStreamsBurst: number;
  readonly refusedStreamsPerSecond: number;
  /** SETTINGS frames: each is acknowledged and may touch every stream. Peers send one, rarely a few. */
  readonly settingsFramesBurst: number;
  readonly settingsFramesPerSecond: number;
  /** Settings in one frame: 8 are known, some peers grease. */
  readonly maxSettingsPerFrame: number;
  /** PING frames: each is answered. gRPC probes bandwidth with one each round trip. */
  readonly pingFramesBurst: number;
  readonly pingFramesPerSecond: number;
  /** DATA frames without payload and without END_STREAM (CVE-2019-9518). */
  readonly emptyDataFramesBurst: number;
  readonly emptyDataFramesPerSecond: number;
  /** WINDOW_UPDATE frames beyond those that our DATA earned: some peers return each frame they get, on stream and connection. */
  readonly windowUpdatesBurst: number;
  readonly windowUpdatesPerSecond: number;
  /** Earned by a DATA frame of ours that the peer's window had not cut short; tiny windows earn nothing. */
  readonly windowUpdatesPerDataFrame: number;
  /** Frames that do nothing: PRIORITY, unknown types, on closed streams, ACKs of no PING, repeated GOAWAY. */
  readonly ignoredFramesBurst: number;
  readonly ignoredFramesPerSecond: number;
  /** CONTINUATION frames of one field block (CVE-2024-27316 and its kin): 4 carry 64 KiB. */
  readonly maxContinuationFramesPerBlock: number;
  /** Compressed field block. Above any honest form of a 64 KiB list; a list too large but below this costs only its stream. */
  readonly maxHeaderBlockBytes: number;
  /** 1xx responses to one request. */
  readonly maxInformationalResponsesPerStream: number;
  /** Payload of a GOAWAY frame (its debug data). */
  readonly maxControlFrameBytes: number;
  /** Frames other than DATA, written while the output was blocked, since it last drained: a peer that asks and does not read (CVE-2019-9517 and kin). */
  readonly maxBlockedControlBytes: number;
  /** Streams that we reset and whose late frames we still excuse; frames of older ones are connection errors. */
  readonly maxRememberedResets: number;
}

export const DEFAULT_SESSION_LIMITS: SessionLimits = {
  prematureResetsBurst: 1000,
  prematureResetsPerSecond: 200,
  streamErrorsBurst: 100,
  streamErrorsPerSecond: 10,
  refusedStreamsBurst: 1000,
  refusedStreamsPerSecond: 200,
  settingsFramesBurst: 50,
  settingsFramesPerSecond: 5,
  maxSettingsPerFrame: 64,
  pingFramesBurst: 1000,
  pingFramesPerSecond: 500,
  emptyDataFramesBurst: 200,
  emptyDataFramesPerSecond: 100,
  windowUpdatesBurst: 4000,
  windowUpdatesPerSecond: 1000,
  windowUpdatesPerDataFrame: 4,
  ignoredFramesBurst: 10_000,
  ignoredFramesPerSecond: 2000,
  maxContinuationFramesPerBlock: 32,
  maxHeaderBlockBytes: 128 * 1024,
  maxInformationalResponsesPerStream: 32,
  maxControlFrameBytes: 16 * 1024,
  maxBlockedControlBytes: 128 * 1024,
  maxRememberedResets: 1024,
};
