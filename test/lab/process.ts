import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where a process runs: it enters the cgroup first and the network namespace second, and only then becomes the command. */
export interface Place {
  /** Path of a cgroup v2 folder. */
  readonly cgroup: string;
  /** Name in /run/netns. */
  readonly netns: string;
  /** File that its processes find at /etc/resolv.conf; absent: the machine's. */
  readonly resolvConf?: string;
}

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Written to standard input, which is then closed. */
  readonly input?: string | Uint8Array;
  /** File that gets all output, too. */
  readonly logFile?: string;
}

export interface ExecOptions extends SpawnOptions {
  /** SIGKILL after this; 30 s by default. */
  readonly timeoutMs?: number;
}

export interface ExecResult {
  /** Exit code; -1 when a signal ended it. */
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What is kept of each output stream; older text is dropped. */
const MAX_OUTPUT_CHARS = 4 << 20;

/** A process of the lab, with what it printed so far. `pid` is the command's own (the shell and nsenter were exec'ed away). */
export class LabProcess {
  readonly command: readonly string[];
  readonly pid: number;
  stdout: string;
  stderr: string;
  /** Resolves once it ended and its output was read. */
  readonly ended: Promise<ExecResult>;
  #child: ChildProcess;
  #waiting: Set<() => void>;

  constructor(child: ChildProcess, command: readonly string[], logFile?: string) {
    this.command = command;
    this.pid = child.pid ?? -1;
    this.stdout = '';
    this.stderr = '';
    this.#child = child;
    this.#waiting = new Set();
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout = (this.stdout + text).slice(-MAX_OUTPUT_CHARS);
      if (logFile !== undefined) note(logFile, text);
      this.#wake();
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-MAX_OUTPUT_CHARS);
      if (logFile !== undefined) note(logFile, text);
      this.#wake();
    });
    this.ended = once(child, 'close').then(([code, signal]: (number | NodeJS.Signals | null)[]) => ({
      code: typeof code === 'number' ? code : -1,
      signal: (signal ?? null) as NodeJS.Signals | null,
      stdout: this.stdout,
      stderr: this.stderr,
    }));
    this.ended.then(
      () => this.#wake(),
      () => this.#wake(),
    );
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resolves with the match as soon as stdout or stderr holds `pattern`; rejects when the process ends before, or at the deadline. */
  waitForOutput(pattern: RegExp, timeoutMs = 20_000): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const finish = (action: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        action();
      };
      const check = (): void => {
        const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
        if (match !== null) finish(() => resolve(match));
        else if (!this.running) finish(() => reject(this.#error(`ended before it printed ${pattern}`)));
      };
      const timer = setTimeout(
        () => finish(() => reject(this.#error(`did not print ${pattern} in ${timeoutMs} ms`))),
        timeoutMs,
      );
      this.#waiting.add(check);
      check();
    });
  }

  /** Writes to standard input, which stays open (only where no `input` was given). */
  write(text: string | Uint8Array): void {
    this.#child.stdin?.write(text);
  }

  /** Sends the signal, if it still runs, and waits for its end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<ExecResult> {
    if (this.running) this.#child.kill(signal);
    return await this.ended;
  }

  /** Sends a signal without waiting. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  #wake(): void {
    for (const check of [...this.#waiting]) check();
  }

  #error(what: string): Error {
    return new Error(
      `${this.command.join(' ')} ${what}\nstdout: ${tail(this.stdout)}\nstderr: ${tail(this.stderr)}`,
    );
  }
}

/** What a process prints while its lab is being removed is lost with it. */
function note(file: string, text: string): void {
  try {
    appendFileSync(file, text);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** Starts `command` in `place`. */
export function spawnIn(place: Place, command: readonly string[], options: SpawnOptions = {}): LabProcess {
  const enter = 'echo $$ > "$1" || exit 1; netns=$2; shift 2; exec nsenter --net="$netns" -- "$@"';
  const child = spawn(
    'sh',
    [
      ...['-c', enter, 'lab', join(place.cgroup, 'cgroup.procs'), `/run/netns/${place.netns}`],
      ...(place.resolvConf === undefined ? [] : withResolvConf(place.resolvConf)),
      ...command,
    ],
    { cwd: options.cwd, env: { ...process.env, NODE_OPTIONS: '', ...options.env }, detached: true },
  );
  child.stdin.on('error', () => undefined); // It may end before it read its input.
  if (options.input !== undefined) child.stdin.end(options.input);
  return new LabProcess(child, command, options.logFile);
}

/** In a mount namespace of its own, as a container has it. */
function withResolvConf(file: string): string[] {
  const mount = 'mount --bind "$1" /etc/resolv.conf || exit 1; shift; exec "$@"';
  return ['unshare', '--mount', 'sh', '-c', mount, 'lab', file];
}

/** Runs `command` in `place` to its end. Never rejects because of an exit code. */
export async function execIn(
  place: Place,
  command: readonly string[],
  options: ExecOptions = {},
): Promise<ExecResult> {
  const child = spawnIn(place, command, { ...options, input: options.input ?? '' });
  const timer = setTimeout(() => child.signal('SIGKILL'), options.timeoutMs ?? 30_000);
  try {
    return await child.ended;
  } finally {
    clearTimeout(timer);
  }
}

/** Like `execIn`, but gives standard output and throws, with all it printed, where the exit code is not 0. */
export async function outputIn(
  place: Place,
  command: readonly string[],
  options: ExecOptions = {},
): Promise<string> {
  const result = await execIn(place, command, options);
  if (result.code === 0) return result.stdout;
  const how = result.signal === null ? `code ${result.code}` : `signal ${result.signal}`;
  throw new Error(
    `${command.join(' ')}: ${how}\nstdout: ${tail(result.stdout)}\nstderr: ${tail(result.stderr)}`,
  );
}

function tail(text: string): string {
  return text.length > 4000 ? `…${text.slice(-4000)}` : text;
}
