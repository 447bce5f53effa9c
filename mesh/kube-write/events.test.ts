import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { FakeApiServer, refuse, sendJson } from '../kube/fake-api-server.js';
import { API_CLIENT_DEFAULTS, ApiClient } from '../kube/index.js';
import { createLog } from '../log/index.js';
import { EVENT_DEFAULTS, EventRecorder, type EventRecorderOptions } from './events.js';
import type { ClusterEvent } from './types.js';

const log = createLog({ level: 'silent', component: 'test' });

let server: FakeApiServer;
let events: Map<string, Record<string, unknown>>;
let recorder: EventRecorder;

beforeEach(async () => {
  server = new FakeApiServer();
  events = new Map();
  server.script = ({ method, path, body }, response) => {
    const sent = body as { metadata: { name: string }; series?: object };
    const key = method === 'POST' ? `${path}/${sent.metadata.name}` : path;
    const known = events.get(key);
    if (method === 'POST' && known !== undefined) return refuse(response, 409, 'there');
    if (method === 'PATCH' && known === undefined) return refuse(response, 404, 'gone');
    events.set(key, { ...known, ...sent });
    sendJson(response, events.get(key));
  };
  await server.start();
});

afterEach(async () => {
  recorder.stop();
  await server.stop();
});

function make(options: Partial<EventRecorderOptions> = {}): EventRecorder {
  recorder = new EventRecorder(
    { ...EVENT_DEFAULTS, controller: 'culvert.io/test', instance: 'one', ...options },
    { client: new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'test' }, { access: server.access }), log },
  );
  return recorder;
}

const event = (name: string, note = 'note'): ClusterEvent => ({
  regarding: { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name, uid: `uid-${name}` },
  type: 'Warning',
  reason: 'Reason',
  action: 'Action',
  note,
});

async function until(what: () => boolean): Promise<void> {
  for (const endMs = Date.now() + 10_000; !what(); ) {
    if (Date.now() > endMs) throw new Error(`not within 10 s: ${what.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('EventRecorder', () => {
  test("an object's long name is cut to what an Event may be called", async () => {
    make().record(event(`${'a'.repeat(199)}.${'b'.repeat(50)}`));
    await until(() => recorder.counts.sent === 1);
    expect([...events.keys()][0]).toMatch(/\/a{199}\.[0-9a-f]{16}$/);
  });

  test('says of which object, what, and who says it', async () => {
    make().record(event('a'));
    await until(() => recorder.counts.sent === 1);
    expect([...events.values()]).toEqual([
      expect.objectContaining({
        regarding: { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'a', uid: 'uid-a' },
        type: 'Warning',
        reason: 'Reason',
        note: 'note',
        reportingController: 'culvert.io/test',
        reportingInstance: 'one',
      }),
    ]);
    expect([...events.keys()][0]).toMatch(/^\/apis\/events\.k8s\.io\/v1\/namespaces\/shop\/events\/a\./);
  });

  test('what is said again is one Event with a count, also after another replica has said it', async () => {
    make({ seriesMs: 0 }).record(event('a'));
    await until(() => recorder.counts.sent === 1);
    recorder.record(event('a'));
    await until(() => recorder.counts.sent === 2);
    expect([...events.values()]).toEqual([
      expect.objectContaining({ series: expect.objectContaining({ count: 2 }) }),
    ]);
    recorder.stop();
    make().record(event('a'));
    await until(() => recorder.counts.sent === 1);
    expect(events.size).toBe(1);
  });

  test('the same within a minute is counted, not sent', async () => {
    make().record(event('a'));
    await until(() => recorder.counts.sent === 1);
    for (let i = 0; i < 100; i++) recorder.record(event('a'));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.requests).toHaveLength(1);
  });

  test('one that has expired is made anew', async () => {
    make({ seriesMs: 0 }).record(event('a'));
    await until(() => recorder.counts.sent === 1);
    events.clear();
    recorder.record(event('a'));
    await until(() => events.size === 1);
  });

  test('an object that has always something new to say is cut short; the others are not', async () => {
    make({ burst: 100, objectBurst: 5 });
    for (let i = 0; i < 50; i++) recorder.record(event('noisy', `note ${i}`));
    recorder.record(event('quiet'));
    await until(() => recorder.counts.sent === 6);
    expect(recorder.counts.dropped).toBe(45);
  });

  test('a flood is told at its rate, and bounded', async () => {
    make({ burst: 3, perSecond: 50, maxWaiting: 10 });
    for (let i = 0; i < 100; i++) recorder.record(event(`pod-${i}`));
    expect(recorder.counts.dropped).toBe(90);
    await until(() => recorder.counts.sent === 10);
  });

  test('a long note is cut at a character', async () => {
    make().record(event('a', 'ä'.repeat(2000)));
    await until(() => recorder.counts.sent === 1);
    const note = String([...events.values()][0]?.['note']);
    expect(Buffer.byteLength(note)).toBeLessThanOrEqual(1024);
    expect(note).toMatch(/^ä+…$/);
  });

  test('an API server that refuses costs the Event and nothing else', async () => {
    server.script = (_request, response) => refuse(response, 403, 'no');
    make().record(event('a'));
    await until(() => recorder.counts.dropped === 1);
    expect(recorder.counts.sent).toBe(0);
  });
});
