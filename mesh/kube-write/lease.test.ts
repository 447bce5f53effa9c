import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { FakeApiServer, refuse, sendJson } from '../kube/fake-api-server.js';
import { API_CLIENT_DEFAULTS, ApiClient } from '../kube/index.js';
import { createLog } from '../log/index.js';
import { LeaseElection } from './lease.js';

// Against a script: what a real API server does is in test/kubernetes/writeback.test.ts.

const FAST = { leaseMs: 600, renewMs: 400, retryMs: 50 };
const log = createLog({ level: 'silent', component: 'test' });

let server: FakeApiServer;
let lease: { metadata: { resourceVersion: string }; spec: Record<string, unknown> } | null;
/** What the API server does. */
let mode: 'works' | 'refuses' | 'hangs';
const elections: LeaseElection[] = [];
const client = () => new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'test' }, { access: server.access });

beforeEach(async () => {
  server = new FakeApiServer();
  lease = null;
  mode = 'works';
  server.script = (request, response) => {
    if (mode === 'hangs') return;
    if (mode === 'refuses') return refuse(response, 503, 'not now');
    const { method = 'GET', body } = request;
    if (method === 'GET') return lease === null ? refuse(response, 404, 'none') : sendJson(response, lease);
    const sent = body as NonNullable<typeof lease>;
    const version = Number(lease?.metadata.resourceVersion ?? 0);
    const isConflict = method === 'POST' ? lease !== null : sent.metadata.resourceVersion !== String(version);
    if (isConflict) return refuse(response, 409, 'conflict');
    lease = { ...sent, metadata: { resourceVersion: String(version + 1) } };
    sendJson(response, lease);
  };
  await server.start();
});

afterEach(async () => {
  mode = 'works';
  await Promise.all(elections.splice(0).map((one) => one.stop()));
  await server.stop();
});

function candidate(identity: string): { election: LeaseElection; told: string[] } {
  const election = new LeaseElection(
    { namespace: 'n', name: 'l', identity, ...FAST },
    { client: client(), log },
  );
  const told: string[] = [];
  election.subscribe({ onLead: () => told.push('lead'), onFollow: () => told.push('follow') });
  election.start();
  elections.push(election);
  return { election, told };
}

async function until(what: () => boolean): Promise<void> {
  for (const endMs = Date.now() + 10_000; !what(); ) {
    if (Date.now() > endMs) throw new Error(`not within 10 s: ${what.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('LeaseElection', () => {
  test('one leads, and hands over at once when it stops', async () => {
    const a = candidate('a');
    await until(() => a.election.isLeader);
    const b = candidate('b');
    await until(() => b.election.holder === 'a');
    expect(b.election.isLeader).toBe(false);
    await a.election.stop();
    expect(lease?.spec).toMatchObject({ holderIdentity: '', leaseDurationSeconds: 1 });
    await until(() => b.election.isLeader);
    expect(lease?.spec).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 });
    expect([a.told, b.told]).toEqual([['lead', 'follow'], ['lead']]);
  });

  test('another takes over when the lease was seen unchanged for its duration, and not before', async () => {
    lease = {
      metadata: { resourceVersion: '7' },
      // A clock far in the future: it proves nothing.
      spec: { holderIdentity: 'dead', leaseDurationSeconds: 1, renewTime: '2999-01-01T00:00:00.000000Z' },
    };
    const startedMs = performance.now();
    const b = candidate('b');
    await until(() => b.election.isLeader);
    expect(performance.now() - startedMs).toBeGreaterThan(990);
  });

  test.each(['refuses', 'hangs'] as const)(
    'who cannot renew stops leading: the API server %s',
    async (how) => {
      const a = candidate('a');
      await until(() => a.election.isLeader);
      mode = how;
      const startedMs = performance.now();
      await until(() => !a.election.isLeader);
      expect(performance.now() - startedMs).toBeLessThan(FAST.leaseMs);
      await until(() => a.told.length === 2);
      expect(a.told).toEqual(['lead', 'follow']);
      mode = 'works';
      await until(() => a.election.isLeader);
    },
  );

  test('two that begin together: one leads', async () => {
    const both = [candidate('a'), candidate('b')];
    await until(() => both.some(({ election }) => election.isLeader));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(both.filter(({ election }) => election.isLeader)).toHaveLength(1);
  });
});
