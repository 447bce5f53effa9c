import { spawn } from 'node:child_process';
import { messageOf } from '../mesh/common/errors.js';
import { runCli } from './run.js';

/** `culvertctl`. Exit codes: 0 done, 1 failed or something is wrong, 2 the command line. */
const terminal = {
  out: (text: string) => void process.stdout.write(text),
  err: (text: string) => void process.stderr.write(text),
  columns: process.stdout.isTTY ? process.stdout.columns : null,
};

function runProgram(script: string, argv: readonly string[]): Promise<number> {
  const path = new URL(`../${script}`, import.meta.url).pathname;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path, ...argv], { stdio: 'inherit' });
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)));
  });
}

// So that what runs for us (kubectl) ends with us.
for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }))
  process.once(signal, () => process.exit(code));
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0); // `| head`
  throw error;
});
runCli(process.argv.slice(2), process.env, { terminal, runProgram }).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exitCode = 1;
  },
);
