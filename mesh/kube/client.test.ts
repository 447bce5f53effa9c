import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { API_CLIENT_DEFAULTS, ApiClient } from './client.js';
import { FakeApiServer } from './fake-api-server.js';

let server: FakeApiServer;

beforeEach(async () => {
  server = new FakeApiServer();
  server.script = () => {}; // no answer, ever
  await server.start();
});

afterEach(() => server.stop());

describe('a request that is given up', () => {
  const client = () =>
    new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'test' }, { access: server.access });

  test('by its time says so', async () => {
    const asked = client().request({ path: '/api/v1/nodes/n', signal: AbortSignal.timeout(20) });
    await expect(asked).rejects.toThrow('/api/v1/nodes/n: no answer in time');
  });

  test('by whoever asked is stopped', async () => {
    const stopping = new AbortController();
    const asked = client().request({ path: '/api/v1/nodes/n', signal: stopping.signal });
    stopping.abort();
    await expect(asked).rejects.toThrow('/api/v1/nodes/n: stopped');
  });
});
