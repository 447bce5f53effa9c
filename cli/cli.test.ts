import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type AdminServers, startAdmin } from '../mesh/admin/index.js';
import { runCli } from './run.js';

const exclusions = { outboundPorts: [], outboundRanges: [], inboundPorts: [] };
const anywhere = { address: '127.0.0.1', port: 0 };
const capture = {
  pods: [
    { uid: 'u2', name: 'cart-1', namespace: 'shop', state: 'captured', reason: '', exclusions },
    {
      uid: 'u1',
      name: 'old-1',
      namespace: 'legacy',
      state: 'refused',
      reason: 'EADDRINUSE: 15001',
      exclusions,
    },
  ],
  unknownPods: 1,
  trouble: 'kubelet not found',
  refusals: { refused_unknown: 3 },
  features: [{ name: 'sk_lookup', present: true }],
  programs: [{ hook: 'connect4', name: 'culvert_conn4', id: 7, tag: 'abcd' }],
  links: [{ hook: 'connect4', id: 9, programId: 7, isLive: false }],
  maps: [
    { name: 'pods', id: 3, entries: 250, capacity: 1000 },
    { name: 'caller_sk', id: 4, entries: null, capacity: 0 },
  ],
};
const problem = {
  file: 'pods.yaml',
  line: 7,
  kind: 'Pod',
  name: 'shop/lost',
  field: 'metadata.uid',
  reason: 'is missing',
  effect: 'it is not in force',
};
const connection = {
  direction: 'outbound',
  source: '10.1.0.1:1',
  destination: '10.1.0.2:80',
  pod: 'shop/cart-1',
  via: 'hbone',
  ageMs: 61_000,
  bytesIn: 2048,
  bytesOut: 7,
};

describe('culvertctl', () => {
  let servers: AdminServers;
  let out: string;
  let err: string;
  let level: string;
  let ran: string[];

  const setLevel = (value: string) => {
    level = value;
  };
  const run = async (...argv: string[]) => {
    out = '';
    err = '';
    const terminal = {
      out(text: string) {
        out += text;
      },
      err(text: string) {
        err += text;
      },
      columns: null,
    };
    const runProgram = async (script: string, args: readonly string[]) => {
      ran = [script, ...args];
      return 3;
    };
    const env = { CULVERTCTL_AGENT: `127.0.0.1:${servers.admin.port}`, CULVERTCTL_CONTROLLER: '127.0.0.1:1' };
    return await runCli(argv, env, { terminal, runProgram });
  };

  beforeEach(async () => {
    level = 'info';
    servers = await startAdmin(
      { admin: anywhere, metrics: anywhere, readiness: anywhere },
      {
        metrics: () => ({ contentType: 'text/plain', body: '' }),
        pending: () => [],
        config: { capture: () => capture, manifests: () => ({ problems: [problem] }) },
        connections: () => [connection, { ...connection, pod: 'shop/evil\x1b[2J', bytesIn: 5 << 20 }],
        logLevel: { levels: ['info', 'debug'], get: () => level, set: setLevel },
        onError() {},
      },
    );
  });

  afterEach(() => servers.close());

  test('pods: a table in the order of names, with the reasons of what is refused', async () => {
    expect(await run('pods')).toBe(0);
    expect(out).toBe(
      [
        'NAMESPACE  POD     STATE     UID  REASON',
        'legacy     old-1   refused   u1   EADDRINUSE: 15001',
        'shop       cart-1  captured  u2   -',
        'nothing is enrolled: kubelet not found',
        '1 pod cgroups whose uid no manifest names: their connections are refused',
        'manifest: pods.yaml:7: Pod shop/lost: metadata.uid: is missing: it is not in force',
        '',
      ].join('\n'),
    );
    expect(await run('pods', '--state', 'captured', '-o', 'json')).toBe(0);
    expect(JSON.parse(out)).toEqual([capture.pods[0]]);
  });

  test('bpf: programs at their hooks, fill of maps, counters; what is not in force is said, with exit code 1', async () => {
    expect(await run('bpf')).toBe(1);
    expect(out).toMatch(/^connect4 +culvert_conn4 +7 +abcd +9 +no$/m);
    expect(out).toMatch(/^pods +3 +250 +1000 +25%$/m);
    expect(out).toMatch(/^caller_sk +4 +- +- +-$/m);
    expect(out).toMatch(/^refused_unknown +3$/m);
    expect(out).toContain('connect4: the cgroup that it was attached to is gone');
    expect(await run('bpf', '-o', 'json')).toBe(1);
    expect(JSON.parse(out)).toEqual(capture);
  });

  test('connections: sorted, and what a peer wrote into a name does not reach the terminal', async () => {
    expect(await run('connections', '--sort', 'bytes')).toBe(0);
    const [head, first, second] = out.split('\n');
    expect(head).toMatch(/^POD +DIRECTION +VIA +AGE +RECEIVED +SENT/);
    expect(first).toMatch(/^shop\/evil\u{fffd}\[2J +outbound +hbone +1m +5\.0M +7/u);
    expect(second).toMatch(/^shop\/cart-1 /);
  });

  test('log shows and sets the level; a level that is none says so', async () => {
    expect(await run('log', 'debug')).toBe(0);
    expect(level).toBe('debug');
    expect(await run('log', 'loud')).toBe(1);
    expect(err).toContain('level "loud" is none of info, debug');
  });

  test('what others wrote into notes and errors does not reach the terminal either', async () => {
    expect(await run('log', 'x\u202e')).toBe(1);
    expect(err).not.toMatch(/[\u202e]/u);
    expect(err).toContain('x\u{fffd}');
  });

  test('other programs are run with their own flags, and their exit code is ours', async () => {
    await run('validate', 'dir', '-o', 'json');
    expect(ran).toEqual(['control/validate.js', '--manifests', 'dir', '--output', 'json']);
    expect(await run('token', 'n1', '--out', 'n1.token')).toBe(3);
    expect(ran).toEqual([
      'control/token.js',
      ...['--node', 'n1', '--state', '/var/lib/culvert', '--lifetime', '24h', '--out', 'n1.token'],
    ]);
    await run('node', 'release', '--force');
    expect(ran).toEqual([
      'agent/clean.js',
      ...['--bpffs', '/sys/fs/bpf/culvert'],
      ...['--cni-bin-dir', '/opt/cni/bin', '--cni-conf-dir', '/etc/cni/net.d'],
      '--force',
    ]);
  });

  test('options stand before or behind an argument, in their short forms, too', async () => {
    for (const words of [
      ['-o', 'json', 'dir'],
      ['dir', '-ojson'],
      ['--output=json', 'dir'],
    ]) {
      await run('validate', ...words);
      expect(ran).toEqual(['control/validate.js', '--manifests', 'dir', '--output', 'json']);
    }
    expect(await run('token', '--out', 'n1.token', 'n1')).toBe(3);
    expect(ran.slice(1, 3)).toEqual(['--node', 'n1']);
    expect(await run('-o', 'json', 'pods', '-n', 'shop')).toBe(0);
    expect(JSON.parse(out)).toEqual([capture.pods[0]]);
  });

  test('help lists the options that the command uses, and no others', async () => {
    const flags = async (...words: string[]) => {
      await run(...words, '--help');
      return [...out.matchAll(/^ {2}(--[a-z]+)/gm)].map((match) => match[1]);
    };
    expect(await flags('token')).toEqual(['--node', '--state', '--lifetime', '--out']);
    expect(await flags('validate')).toEqual(['--folder', '--output']);
    expect(await flags('status')).toEqual(expect.arrayContaining(['--agent', '--controller', '--output']));
    expect(await flags('pods')).not.toContain('--controller');
    expect(await run('token', 'n1', '-o', 'json')).toBe(2);
  });

  test('an agent that does not answer is one line naming its address and the option', async () => {
    expect(await run('pods', '--agent', '127.0.0.1:1')).toBe(1);
    expect(err).toMatch(/^no agent answers at 127\.0\.0\.1:1: .*ECONNREFUSED.*--agent IP:PORT.*\n$/);
    expect(out).toBe('');
  });

  test('what is wrong with a command line is said, with exit code 2', async () => {
    expect(await run('pods', '--nope', '-o', 'xml')).toBe(2);
    expect(err).toBe(
      "--nope is not an option of this program\n--output: must be one of table, json, not 'xml'\nculvertctl pods --help lists the options\n",
    );
    expect(await run('prods')).toBe(2);
    expect(err).toMatch(/^prods is no command\n\nUsage: culvertctl/);
  });

  test('every command has help with examples that begin with its own name', async () => {
    await run('--help');
    const paths = [...out.matchAll(/^ {2}([a-z]+(?: [a-z]+)?) {2,}/gm)].map((match) => match[1]!);
    expect(paths.length).toBeGreaterThan(10);
    for (const path of paths.filter((name) => name !== 'completion')) {
      expect(await run(...path.split(' '), '--help')).toBe(0);
      expect(out).toContain(`Examples:\n  culvertctl ${path}`);
    }
  });

  test('bash completes commands, subcommands, flags and output formats', async () => {
    await run('completion');
    const complete = (...words: string[]) =>
      execFileSync('bash', [
        '-c',
        `${out}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _culvertctl; echo "\${COMPREPLY[*]}"`,
        'bash',
        ...words,
      ])
        .toString()
        .trim();
    expect(complete('culvertctl', 'po')).toBe('pods');
    expect(complete('culvertctl', 'proxy', 'c')).toBe('config');
    expect(complete('culvertctl', 'proxy', 'config', '--ki')).toBe('--kind');
    expect(complete('culvertctl', 'connections', '--so')).toBe('--sort');
    expect(complete('culvertctl', 'pods', '-o', '')).toBe('table json');
    expect(complete('culvertctl', 'token', '--c')).toBe('');
  });

  test('doctor judges this machine and says what to do', async () => {
    await run('doctor', '-o', 'json');
    const findings = JSON.parse(out) as { check: string; verdict: string; advice: string }[];
    expect(findings.find(({ check }) => check === 'kernel')).toMatchObject({ verdict: 'ok' });
    for (const { advice, verdict } of findings) if (verdict !== 'ok') expect(advice).not.toBe('');
  });
});
