import { spawn } from 'node:child_process';
import { get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { RunningContainer } from './runtime.js';
import type { Container, Handler, HttpGet, Probe } from './types.js';

/** What a probe found: undefined for success, else why not. */
export type ProbeResult = string | undefined;

export interface ProbeTarget {
  readonly container: Container;
  readonly running: RunningContainer;
  /** The pod's first address. */
  readonly ip: string;
}

/**
 * Does what the handler says, once: from the kubelet's own namespace and cgroup where it goes by the network, inside the container where
 * it is a command.
 */
export async function runHandler(
  handler: Handler,
  target: ProbeTarget,
  timeoutMs: number,
): Promise<ProbeResult> {
  if (handler.exec) return await runCommand(target.running, handler.exec.command, timeoutMs);
  if (handler.httpGet) return await runHttp(handler.httpGet, target, timeoutMs);
  if (handler.tcpSocket) {
    const { host, port } = handler.tcpSocket;
    return await runTcp(host ?? target.ip, portOf(target.container, port), timeoutMs);
  }
  if (handler.sleep) {
    await Promise.race([delay(handler.sleep.seconds * 1000), target.running.ended]);
    return undefined;
  }
  return 'the lab knows exec, httpGet, tcpSocket and sleep';
}

function runCommand(
  running: RunningContainer,
  command: readonly string[],
  timeoutMs: number,
): Promise<ProbeResult> {
  const entered = running.enter(command);
  return new Promise((resolve) => {
    const child = spawn(entered.command[0]!, entered.command.slice(1), {
      env: entered.env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-1000);
      });
    }
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve(
        code === 0
          ? undefined
          : code === null
            ? `command timed out after ${timeoutMs} ms`
            : `exit code ${code}: ${output}`,
      );
    });
  });
}

function runHttp(http: HttpGet, target: ProbeTarget, timeoutMs: number): Promise<ProbeResult> {
  const headers = Object.fromEntries((http.httpHeaders ?? []).map(({ name, value }) => [name, value]));
  const options = {
    host: http.host ?? target.ip,
    port: portOf(target.container, http.port),
    path: http.path ?? '/',
    headers: { 'user-agent': 'kube-probe/1.36', ...headers },
    agent: false as const,
    timeout: timeoutMs,
    rejectUnauthorized: false,
  };
  return new Promise((resolve) => {
    const get = http.scheme === 'HTTPS' ? httpsGet : httpGet;
    const request = get(options, (answer) => {
      answer.resume();
      const good = answer.statusCode! >= 200 && answer.statusCode! < 400;
      resolve(good ? undefined : `HTTP probe failed with statuscode: ${answer.statusCode}`);
    });
    const timer = setTimeout(() => request.destroy(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
    request.on('close', () => clearTimeout(timer));
    request.on('error', (error) => resolve(error.message));
  });
}

function runTcp(host: string, port: number, timeoutMs: number): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const finish = (result: ProbeResult): void => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(timeoutMs, () => finish(`no connection in ${timeoutMs} ms`));
    socket.on('connect', () => finish(undefined));
    socket.on('error', (error) => finish(error.message));
  });
}

function portOf(container: Container, port: number | string): number {
  if (typeof port === 'number') return port;
  return container.ports?.find(({ name }) => name === port)?.containerPort ?? Number(port);
}

/**
 * Probes until the container ends or `signal`, and tells each change: true after `successThreshold` good results in a row, false after
 * `failureThreshold` bad ones, with the last reason.
 */
export async function watchProbe(
  probe: Probe,
  target: ProbeTarget,
  signal: AbortSignal,
  tell: (good: boolean, reason: string) => void,
): Promise<void> {
  const period = (probe.periodSeconds ?? 10) * 1000;
  let [row, last]: [number, boolean | null] = [0, null];
  await pause((probe.initialDelaySeconds ?? 0) * 1000, signal);
  while (!signal.aborted && target.running.running) {
    const result = await runHandler(probe, target, (probe.timeoutSeconds ?? 1) * 1000);
    if (signal.aborted || !target.running.running) return;
    const good = result === undefined;
    row = good === last ? row + 1 : 1;
    last = good;
    const threshold = good ? (probe.successThreshold ?? 1) : (probe.failureThreshold ?? 3);
    if (row >= threshold) tell(good, result ?? '');
    await pause(period, signal);
  }
}

/** Waits, but not longer than until the signal. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0 || signal.aborted) return;
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
