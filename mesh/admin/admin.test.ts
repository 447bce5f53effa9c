import { request } from 'node:http';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { SocketAddress } from '../common/address.js';
import { type AdminServers, startAdmin } from './admin.js';
import type { AdminDeps } from './types.js';

const ANYWHERE = { address: '127.0.0.1', port: 0 };

interface Answer {
  status: number;
  type: string;
  encoding: string | undefined;
  body: string;
}

function ask(
  at: SocketAddress,
  path: string,
  options: { method?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: at.address, port: at.port, path, agent: false, ...options }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const encoding = response.headers['content-encoding'];
        const bytes = Buffer.concat(chunks);
        const body = (encoding === 'gzip' ? gunzipSync(bytes) : bytes).toString();
        resolve({ status: response.statusCode!, type: response.headers['content-type']!, encoding, body });
      });
    });
    sent.on('error', reject);
    sent.end();
  });
}

describe('admin servers', () => {
  let servers: AdminServers;
  let level: string;
  let pending: string[];
  let metricsBody: string;
  let errors: string[];

  function deps(changes: Partial<AdminDeps> = {}): AdminDeps {
    return {
      metrics: (accept) => ({ contentType: `text/of-${accept ?? 'nothing'}`, body: metricsBody }),
      pending: () => pending,
      config: {
        options: () => ({
          port: 1,
          tokenFile: '/var/run/token',
          bearerToken: 'SECRET-1',
          nested: [{ password: 'SECRET-2' }],
        }),
        tls: async () => ({
          privateKey: '-----BEGIN PRIVATE KEY-----\nSECRET-3\n-----END PRIVATE KEY-----',
          note: 'sent Bearer SECRET-4 and eyJhbGciOiJub25lIn0.SECRET-5.sig',
          der: Buffer.from('SECRET-6'),
        }),
        store: () =>
          new Map([['token-service', new Set([{ key: 'shop/p', authorizationPolicies: ['shop/p'] }])]]),
        odd: () => ({ cookie: 12n, failure: new Error('why'), none: undefined }),
      },
      connections: () => [{ from: '10.0.0.1:1', to: '10.0.0.2:2' }],
      logLevel: {
        levels: ['error', 'info', 'debug'],
        get: () => level,
        set: (value) => {
          level = value;
        },
      },
      commands: {
        'workers/restart': {
          usage: 'worker=N',
          run: async (query) => {
            if (query.get('worker') !== '1') throw new RangeError('no such worker');
            return 'worker 1 restarts';
          },
        },
      },
      onError: (_error, what) => errors.push(what),
      ...changes,
    };
  }

  beforeEach(async () => {
    level = 'info';
    pending = [];
    metricsBody = 'metric 1\n';
    errors = [];
    servers = await startAdmin({ metrics: ANYWHERE, readiness: ANYWHERE, admin: ANYWHERE }, deps());
  });

  afterEach(() => servers.close());

  test.each(['/metrics', '/stats/prometheus'])(
    'metrics at %s, in the format that was asked for',
    async (path) => {
      const answer = await ask(servers.metrics, path, { headers: { accept: 'openmetrics' } });
      expect(answer).toEqual({
        status: 200,
        type: 'text/of-openmetrics',
        encoding: undefined,
        body: 'metric 1\n',
      });
    },
  );

  test.each([
    ['gzip', 'gzip'],
    ['br, gzip;q=0.5', 'gzip'],
    ['*', 'gzip'],
    ['gzip;q=0', undefined],
    ['br', undefined],
    ['', undefined],
  ])('a large body for accept-encoding %p is encoded by %p', async (accepted, encoding) => {
    metricsBody = 'metric 1\n'.repeat(1000);
    const answer = await ask(servers.metrics, '/metrics', { headers: { 'accept-encoding': accepted } });
    expect(answer.encoding).toBe(encoding);
    expect(answer.body).toBe(metricsBody);
  });

  test('readiness is 200 "ready", or 500 naming what is pending', async () => {
    expect(await ask(servers.readiness, '/healthz/ready')).toMatchObject({ status: 200, body: 'ready\n' });
    pending = ['xds: waiting for Address', 'capture: 2 pods'];
    const answer = await ask(servers.readiness, '/healthz/ready');
    expect(answer.status).toBe(500);
    expect(answer.body).toContain('xds: waiting for Address\ncapture: 2 pods');
  });

  test('the config dump holds every section and nothing secret', async () => {
    const { status, type, body } = await ask(servers.admin, '/config_dump');
    expect({ status, type }).toEqual({ status: 200, type: 'application/json' });
    expect(body).not.toContain('SECRET');
    expect(body).not.toContain(Buffer.from('SECRET').toString('base64').slice(0, 6));
    expect(JSON.parse(body)).toEqual({
      options: {
        port: 1,
        tokenFile: '/var/run/token',
        bearerToken: '(hidden)',
        nested: [{ password: '(hidden)' }],
      },
      tls: { privateKey: '(hidden)', note: 'sent (hidden) and (hidden)', der: '(8 bytes)' },
      store: { 'token-service': [{ key: 'shop/p', authorizationPolicies: ['shop/p'] }] },
      odd: { cookie: '12', failure: 'why' },
    });
  });

  test('connections and index', async () => {
    const { body } = await ask(servers.admin, '/connections');
    expect(JSON.parse(body)).toEqual([{ from: '10.0.0.1:1', to: '10.0.0.2:2' }]);
    const index = await ask(servers.admin, '/');
    expect(index.body).toBe(
      'GET /config_dump\nGET /connections\nGET /logging\nPOST /logging?level=LEVEL\nPOST /workers/restart?worker=N\n',
    );
  });

  test('the log level is shown and set, but not by a web page', async () => {
    expect((await ask(servers.admin, '/logging')).body).toBe('level is info\n');
    expect(await ask(servers.admin, '/logging?level=debug', { method: 'POST' })).toMatchObject({
      status: 200,
    });
    expect(level).toBe('debug');
    const bad = await ask(servers.admin, '/logging?level=loud', { method: 'POST' });
    expect(bad).toMatchObject({ status: 400, body: 'level "loud" is none of error, info, debug\n' });
    const foreign = { method: 'POST', headers: { origin: 'http://evil.test' } };
    expect((await ask(servers.admin, '/logging?level=error', foreign)).status).toBe(403);
    expect(level).toBe('debug');
  });

  test('admin listens on loopback only, and answers to no name but localhost', async () => {
    for (const host of ['localhost', 'localhost:15000', '127.0.0.1:1', '[::1]:15000'])
      expect((await ask(servers.admin, '/logging', { headers: { host } })).status).toBe(200);
    for (const host of ['evil.example', 'evil.example:15000', '127.0.0.1.evil.example'])
      expect((await ask(servers.admin, '/logging', { headers: { host } })).status).toBe(403);
    const open = { admin: { address: '0.0.0.0', port: 0 }, metrics: ANYWHERE, readiness: ANYWHERE };
    await expect(startAdmin(open, deps())).rejects.toThrow('loopback only, not on 0.0.0.0');
  });

  test('a command is run by POST only, not for web pages, and says what is wrong with its query', async () => {
    const post = { method: 'POST' };
    const path = '/workers/restart?worker=';
    expect(await ask(servers.admin, `${path}1`, post)).toMatchObject({
      status: 200,
      body: 'worker 1 restarts\n',
    });
    expect(await ask(servers.admin, `${path}2`, post)).toMatchObject({
      status: 400,
      body: 'no such worker\n',
    });
    expect((await ask(servers.admin, `${path}1`)).status).toBe(405);
    const foreign = { ...post, headers: { origin: 'http://evil.example' } };
    expect((await ask(servers.admin, `${path}1`, foreign)).status).toBe(403);
  });

  test('paths of one server are unknown to the others; other methods are refused; HEAD has no body', async () => {
    expect((await ask(servers.metrics, '/config_dump')).status).toBe(404);
    expect((await ask(servers.readiness, '/metrics')).status).toBe(404);
    expect(await ask(servers.metrics, '/metrics', { method: 'DELETE' })).toMatchObject({
      status: 405,
      body: '/metrics takes GET\n',
    });
    expect(await ask(servers.metrics, '/metrics', { method: 'HEAD' })).toMatchObject({
      status: 200,
      body: '',
    });
  });

  test('a provider that throws is a 500 and is reported', async () => {
    await servers.close();
    const broken = deps({ connections: () => Promise.reject(new Error('worker 1 is gone')) });
    servers = await startAdmin({ metrics: ANYWHERE, readiness: ANYWHERE, admin: ANYWHERE }, broken);
    expect(await ask(servers.admin, '/connections')).toMatchObject({
      status: 500,
      body: 'worker 1 is gone\n',
    });
    expect(errors).toEqual(['GET /connections']);
  });

  test('an address in use fails the start and leaves nothing open', async () => {
    const taken = startAdmin({ metrics: ANYWHERE, readiness: servers.admin, admin: ANYWHERE }, deps());
    await expect(taken).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });
});
