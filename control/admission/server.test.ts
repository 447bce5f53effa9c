import type { ClientRequest } from 'node:http';
import { request } from 'node:https';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { derToPem, generateKeyPair, issueCertificate } from '../../mesh/identity/index.js';
import { createLog } from '../../mesh/log/index.js';
import { TRANSLATE_DEFAULTS } from '../translate/index.js';
import { AdmissionServer } from './server.js';
import type { Verdict } from './types.js';

const MIB = 1 << 20;
const keys = generateKeyPair();
const notAfterMs = Date.now() + 3_600_000;
const PAIR = {
  key: String(keys.privateKey.export({ type: 'pkcs8', format: 'pem' })),
  cert: derToPem(
    issueCertificate({ publicKey: keys.publicKey, dnsNames: ['webhook'], notBeforeMs: 0, notAfterMs }, keys),
    'CERTIFICATE',
  ),
};
const SMALL = JSON.stringify({
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  request: { uid: 'u', object: null },
});

let server: AdmissionServer;
let verdicts: Verdict[];
let sent: ClientRequest[];

beforeEach(async () => {
  verdicts = [];
  sent = [];
  server = await AdmissionServer.start(
    { ...TRANSLATE_DEFAULTS, listen: { address: '127.0.0.1', port: 0 } },
    {
      pair: PAIR,
      onVerdict: (verdict) => verdicts.push(verdict),
      log: createLog({ level: 'silent', component: 'test' }),
    },
  );
});

afterEach(async () => {
  for (const one of sent) one.destroy();
  await server.close();
});

interface Post {
  readonly status: Promise<number>;
  /** Resolves when the server has the bytes, or will have no more of them. */
  write(bytes: number): Promise<void>;
  end(text?: string): void;
  cut(): void;
}

function post(): Post {
  const one = request({
    host: '127.0.0.1',
    port: server.port,
    path: '/validate',
    method: 'POST',
    rejectUnauthorized: false,
    agent: false,
  });
  sent.push(one);
  const status = new Promise<number>((resolve) => {
    one.on('response', (response) => resolve(response.resume().statusCode ?? 0));
    one.on('error', () => resolve(0));
  });
  return {
    status,
    write: async (bytes) =>
      void (await Promise.race([
        status,
        new Promise<void>((resolve) => one.write(' '.repeat(bytes), () => resolve())),
      ])),
    end: (text) => one.end(text),
    cut: () => one.destroy(),
  };
}

describe('bodies', () => {
  test('one that is too long is refused before its end', async () => {
    const one = post();
    await one.write(9 * MIB);
    expect(await one.status).toBe(413);
    expect(verdicts).toEqual(['failed']);
  });

  test('all together are bounded; what has gone makes room', async () => {
    const posts = Array.from({ length: 5 }, post);
    const first = Promise.race(posts.map(({ status }) => status));
    await Promise.all(posts.map((one) => one.write(7 * MIB)));
    expect(await first).toBe(503);
    for (const one of posts) one.cut();
    // Cuts are seen in their own time.
    for (;;) {
      const small = post();
      await small.write(7 * MIB);
      small.end(SMALL);
      if ((await small.status) === 200) break;
    }
    expect(verdicts.at(-1)).toBe('allowed');
  });
});
