/**
 * An agent that is only agent/capture and a plain relay, for tests: `node capture-agent.js '<options as JSON>'`. Writes one JSON object a line
 * to standard output; reads commands (`status`, `stop`) from standard input. What it relays it tells: direction, pod, caller, destination.
 */
import { closeSync } from 'node:fs';
import { createServer, type Server, Socket } from 'node:net';
import { createInterface } from 'node:readline';
import {
  ApplicationDialer,
  Capture,
  type CapturedPod,
  type CaptureListener,
  type CaptureOptions,
  FilesPodSource,
  OriginalDestinationMap,
} from '../../agent/capture/index.js';
import { createLog } from '../../mesh/log/index.js';

export interface CaptureAgentConfig {
  readonly capture: CaptureOptions;
  readonly folder: string;
  readonly nodeName: string;
  /** Pods (by name) whose onCaptured takes this long. */
  readonly slowMs?: Readonly<Record<string, number>>;
}
