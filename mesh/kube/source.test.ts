import type { ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { until } from '../../test/support/wait.js';
import { createLog } from '../log/index.js';
import { decoderOf, type Fields, type SourceBatch } from '../manifests/index.js';
import { API_CLIENT_DEFAULTS, ApiClient } from './client.js';
import {
  added,
  bookmark,
  deleted,
  FakeApiServer,
  failed,
  item,
  modified,
  page,
  refuse,
  send,
  sendJson,
} from './fake-api-server.js';
import { KUBERNETES_SOURCE_DEFAULTS, KubernetesSource, type KubernetesSourceOptions } from './source.js';

// Faults that no real API server shows on demand; how it is with a real one: test/kubernetes.

const log = createLog({ level: 'silent', component: 'test' });
const decode = decoderOf<string>(
  new Map([
    [
      'v1 ConfigMap',
      {
        namespaced: true,
        nameForm: 'subdomain',
        decode: (fields: Fields) => {
          const value = fields.object('data').text('value');
          return value === 'ignored' ? null : value;
        },
      },
    ],
  ]),
);

let server: FakeApiServer;
let client: ApiClient;
let source: KubernetesSource<string>;
let batches: SourceBatch<string>[];
/** Of the script's requests, in order. */
let responses: ServerResponse[];

beforeEach(async () => {
  server = new FakeApiServer();
  await server.start();
  batches = [];
  responses = [];
  client = new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'test' }, { access: server.access });
  source = open();
});

afterEach(async () => {
  source.stop();
  client.close();
  await server.stop();
});

function open(options: Partial<KubernetesSourceOptions> = {}): KubernetesSource<string> {
  const kinds = [{ kind: 'ConfigMap', apiVersions: ['v1'] }];
  return new KubernetesSource<string>(
    { ...KUBERNETES_SOURCE_DEFAULTS, firstMs: 20, mostMs: 200, pageSize: 2, ...options, kinds },
    { client, decode, onBatch: (batch) => batches.push(batch), log, random: () => 0.5 },
  );
}

/** Answers the n-th request by the n-th of these; the last one answers all that follow. */
function script(...answers: ((response: ServerResponse) => void)[]): void {
  server.script = (_request, response) => {
    responses.push(response);
    answers[Math.min(responses.length, answers.length) - 1]!(response);
  };
}

const streamed =
  (version: number, ...items: object[]) =>
  (response: ServerResponse) =>
    send(response, ...items.map(added), bookmark(version, true));
const opened =
  (...events: object[]) =>
  (response: ServerResponse) =>
    send(response, ...events);
const hangs = () => {};
const values = () => [...source.values()].sort();
const told = () => batches.map(({ upserted, removed }) => [Object.fromEntries(upserted), removed] as const);
const [a, b] = ['ConfigMap/shop/a', 'ConfigMap/shop/b'];

describe('a listing', () => {
  test('that is streamed is handed on in one batch; then events in order', async () => {
    script(streamed(9, item('a', 3), item('b', 5)));
    await source.start();
    expect(told()).toEqual([[{ [a]: 'v3', [b]: 'v5' }, []]]);
    send(responses[0]!, modified(item('a', 10)), deleted(item('b', 11)), added(item('c', 12)));
    await until(() => values().length === 2 && values()[0] === 'v10');
    expect(told().slice(1)).toEqual([[{ [a]: 'v10', 'ConfigMap/shop/c': 'v12' }, [b]]]);
    expect(server.asked).toEqual(['stream']);
    expect(source.status[0]).toMatchObject({ state: 'watching', objects: 2, listings: 1, trouble: '' });
  });

  test('comes in pages where lists are not streamed; the watch begins at its version', async () => {
    script(
      (response) => refuse(response, 422, 'sendInitialEvents is forbidden for watch'),
      (response) => sendJson(response, page(7, [item('a', 1), item('b', 2)], 'more')),
      (response) => sendJson(response, page(7, [item('c', 3)])),
      opened(),
    );
    await source.start();
    await until(() => server.asked.length === 4);
    expect(server.asked).toEqual(['stream', 'list', 'list more', 'watch 7']);
    expect(server.requests[1]!.query['limit']).toBe('2');
    expect(values()).toEqual(['v1', 'v2', 'v3']);
  });

  test('whose next page has expired begins anew, and nothing is told before it is whole', async () => {
    script(
      (response) => refuse(response, 422, 'not served'),
      (response) => sendJson(response, page(7, [item('a', 1)], 'more')),
      (response) => refuse(response, 410, 'expired'),
      (response) => sendJson(response, page(8, [item('b', 8)])),
      opened(),
    );
    await source.start();
    expect(told()).toEqual([[{ [b]: 'v8' }, []]]);
    expect(server.asked.slice(0, 4)).toEqual(['stream', 'list', 'list more', 'list']);
  });

  test('that ends early, or is cut, begins anew', async () => {
    script(
      (response) => {
        send(response, added(item('gone', 1)));
        response.end();
      },
      (response) => {
        send(response, added(item('gone', 1)));
        setTimeout(() => response.destroy(), 20);
      },
      streamed(9, item('a', 3)),
    );
    await source.start();
    expect(told()).toEqual([[{ [a]: 'v3' }, []]]);
  });

  test('that stalls is asked for in pages', async () => {
    source = open({ maxSilenceMs: 100 });
    script(opened(added(item('a', 1))), (response) => sendJson(response, page(7, [item('a', 1)])), opened());
    await source.start();
    expect(server.asked.slice(0, 2)).toEqual(['stream', 'list']);
  });

  test('whose page is too long comes in smaller ones', async () => {
    client = new ApiClient(
      { ...API_CLIENT_DEFAULTS, maxAnswerBytes: 2000, userAgent: 'test' },
      { access: server.access },
    );
    source = open({ pageSize: 8 });
    const large = item('a', 1, 'x'.repeat(3000));
    script(
      (response) => refuse(response, 422, 'not served'),
      (response) => sendJson(response, page(7, [large])),
      (response) => sendJson(response, page(7, [item('a', 1)])),
      opened(),
    );
    await source.start();
    expect(server.requests.slice(1, 3).map(({ query }) => query['limit'])).toEqual(['8', '2']);
  });
});

describe('a watch', () => {
  test('that ends goes on where it was, by event or bookmark; half a line at its end counts for nothing', async () => {
    script(
      streamed(9, item('a', 3)),
      (response) => {
        send(response, modified(item('a', 20)));
        response.end('{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"99"');
      },
      opened(bookmark(30)),
      opened(),
    );
    await source.start();
    responses[0]!.end();
    await until(() => server.asked.length === 3);
    responses[2]!.end();
    await until(() => server.asked.length === 4);
    expect(server.asked).toEqual(['stream', 'watch 9', 'watch 20', 'watch 30']);
    expect(told().slice(1)).toEqual([[{ [a]: 'v20' }, []]]);
  });

  test.each([
    ['as an answer', (response: ServerResponse) => refuse(response, 410, 'too old')],
    ['as an event', opened(failed(410, 'too old resource version'))],
    ['a version ahead of the server', opened(failed(504, 'Too large resource version: 9, current: 4'))],
    ['a line that is no event', (response: ServerResponse) => send(response, { kind: 'Surprise' })],
  ])(
    'is expired (%s): listed anew, everything stays until that is whole, only differences are told',
    async (_how, expired) => {
      script(
        streamed(9, item('a', 3), item('b', 5)),
        expired,
        hangs,
        streamed(50, item('a', 3), item('c', 40)),
      );
      await source.start();
      responses[0]!.end();
      await until(() => server.asked.length === 3);
      expect(server.asked).toEqual(['stream', 'watch 9', 'stream']);
      expect(values()).toEqual(['v3', 'v5']);
      send(responses[2]!, added(item('c', 40)));
      responses[2]!.destroy();
      await until(() => server.asked.length === 4 && values().includes('v40'));
      expect(told().slice(1)).toEqual([[{ 'ConfigMap/shop/c': 'v40' }, [b]]]);
    },
  );

  test('that stalls is asked for again; after two of them everything is read anew, whatever its version', async () => {
    source = open({ maxSilenceMs: 150 });
    script(streamed(9, item('a', 3)), opened(), opened(), streamed(4, item('a', 3, 'restored')));
    await source.start();
    await until(() => values()[0] === 'restored');
    expect(server.asked.slice(0, 4)).toEqual(['stream', 'watch 9', 'watch 9', 'stream']);
    expect(told()[1]).toEqual([{ [a]: 'restored' }, []]);
  });

  test('of no objects that is silent is no trouble; a server that does not answer is', async () => {
    source = open({ maxSilenceMs: 150, firstMs: 200 });
    script(streamed(9), opened(), (response) => response.destroy());
    await source.start();
    await until(() => source.status[0]!.state !== 'watching');
    expect(server.asked).toHaveLength(3);
  });

  test('that is cut, and a server that is away: what was seen stays, attempts are few, it catches up', async () => {
    script(streamed(9, item('a', 3)), opened(modified(item('a', 10))));
    await source.start();
    const { port } = new URL(server.access.read().server);
    await server.stop();
    await until(() => source.problems[0]?.reason.includes('127.0.0.1') === true);
    expect(source.status[0]!.state).toBe('interrupted');
    expect(values()).toEqual(['v3']);
    await server.start(Number(port));
    await until(() => values()[0] === 'v10');
    expect(server.asked).toEqual(['stream', 'watch 9']);
    expect(source.problems).toEqual([]);
  });

  test('is asked for again with the token as it is then', async () => {
    script(
      streamed(9, item('a', 3)),
      (response) => {
        refuse(response, 401, 'Unauthorized');
        server.token = 'token-2';
      },
      opened(),
    );
    await source.start();
    responses[0]!.end();
    await until(() => server.asked.length === 3);
    expect(server.requests.map(({ token }) => token)).toEqual(['token-1', 'token-1', 'token-2']);
  });

  test('waits as long as the server asks for', async () => {
    let refusedMs = 0;
    script(
      streamed(9, item('a', 3)),
      (response) => {
        refusedMs = performance.now();
        refuse(response, 429, 'slow down', { details: { retryAfterSeconds: 1 } });
      },
      opened(),
    );
    await source.start();
    responses[0]!.end();
    await until(() => server.asked.length === 3);
    expect(performance.now() - refusedMs).toBeGreaterThan(990);
  });

  test('that is refused over and over is asked for at ever longer intervals', async () => {
    source = open({ firstMs: 50, mostMs: 400 });
    script(streamed(9, item('a', 3)), (response) => refuse(response, 403, 'forbidden'));
    await source.start();
    const begunMs = performance.now();
    responses[0]!.end();
    await until(() => server.asked.length === 5); // after 50 + 100 + 200 + 400 ms
    expect(performance.now() - begunMs).toBeGreaterThan(700);
    expect(values()).toEqual(['v3']);
    expect(source.problems[0]!.reason).toContain('forbidden');
  });

  test('with an event that never ends is ended, and everything listed anew', async () => {
    source = open({ maxEventBytes: 10_000 });
    script(
      streamed(9, item('a', 3)),
      opened(modified(item('a', 10, 'x'.repeat(20_000)))),
      streamed(11, item('a', 11)),
    );
    await source.start();
    responses[0]!.end();
    await until(() => values()[0] === 'v11');
  });
});

describe('objects', () => {
  test('that are invalid are reported, and the last good version stays', async () => {
    script(streamed(9, item('a', 3), item('b', 4, { no: 'text' })));
    await source.start();
    expect(source.isUnsettled(b)).toBe(true);
    expect(values()).toEqual(['v3']);
    send(responses[0]!, modified(item('a', 10, 5)));
    await until(() => source.problems.length === 2);
    expect(values()).toEqual(['v3']);
    expect(source.problems[1]).toEqual({
      file: 'kubernetes',
      line: 0,
      kind: 'ConfigMap',
      name: 'shop/a',
      field: 'data.value',
      reason: 'must be a text, not 5',
      effect: 'its last good version stays in force',
    });
    expect(source.problems[0]).toMatchObject({ name: 'shop/b', effect: 'it is not in force' });
    send(responses[0]!, modified(item('a', 11)), modified(item('b', 12)));
    await until(() => source.problems.length === 0);
    expect(values()).toEqual(['v11', 'v12']);
  });

  test('an invalid one of the same name, but another one, does not inherit', async () => {
    script(streamed(9, item('a', 3)));
    await source.start();
    send(responses[0]!, modified(item('a', 10, 5, 'uid-other')));
    await until(() => source.isUnsettled(a));
    expect(told()[1]).toEqual([{}, [a]]);
  });

  test('that become none of our business go', async () => {
    script(streamed(9, item('a', 3)));
    await source.start();
    send(responses[0]!, modified(item('a', 10, 'ignored')));
    await until(() => values().length === 0);
  });
});

describe('kinds that are not served', () => {
  test('are no error, and are found when they come', async () => {
    const kinds = [
      { kind: 'ConfigMap', apiVersions: ['v1'] },
      { kind: 'Gadget', apiVersions: ['example.org/v2', 'example.org/v1'] },
    ];
    const decodeGadgets = decoderOf<string>(
      new Map([
        ['example.org/v1 Gadget', { namespaced: true, nameForm: 'subdomain', decode: () => 'gadget' }],
      ]),
    );
    source = new KubernetesSource<string>(
      { ...KUBERNETES_SOURCE_DEFAULTS, absentRetryMs: 100, kinds },
      {
        client,
        decode: (object) => (object.kind === 'Gadget' ? decodeGadgets(object) : decode(object)),
        onBatch: (batch) => batches.push(batch),
        log,
      },
    );
    let isServed = false;
    const resource = { name: 'gadgets', kind: 'Gadget', namespaced: true, verbs: ['list', 'watch'] };
    server.script = ({ path, isWatch }, response) => {
      if (isWatch && path.endsWith('gadgets')) streamed(9, item('g', 9))(response);
      else if (isWatch) streamed(5, item('a', 3))(response);
      else if (path === '/apis/example.org/v1' && isServed) sendJson(response, { resources: [resource] });
      else refuse(response, 404, 'not found');
    };
    await source.start();
    expect(source.status.map(({ state }) => state)).toEqual(['watching', 'absent']);
    isServed = true;
    await until(() => values().includes('gadget'));
    expect(source.status[1]).toMatchObject({ state: 'watching', apiVersion: 'example.org/v1' });
  });
});

test('as another user where that is allowed, else as ourselves', async () => {
  const kinds = [{ kind: 'ConfigMap', apiVersions: ['v1'], asUser: 'system:node:n1' }];
  source = new KubernetesSource<string>(
    { ...KUBERNETES_SOURCE_DEFAULTS, firstMs: 20, mostMs: 200, kinds },
    { client, decode, onBatch: (batch) => batches.push(batch), log },
  );
  script((response) => refuse(response, 403, 'may not impersonate'), streamed(9, item('a', 3)));
  await source.start();
  expect(server.requests.map(({ user }) => user)).toEqual(['system:node:n1', '']);
});

test('stop ends every request, also before anything was seen', async () => {
  script(hangs);
  void source.start();
  await until(() => server.asked.length === 1);
  source.stop();
  await until(() => responses[0]!.destroyed);
  expect(batches).toEqual([]);
  expect(source.pending).toEqual(['ConfigMap']);
});
