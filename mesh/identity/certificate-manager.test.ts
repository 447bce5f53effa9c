// Longer than 400 lines: everything that one class does, over one bench.
import { describe, expect, test } from '@jest/globals';
import type { Clock } from '../common/clock.js';
import { createLog } from '../log/index.js';
import {
  CertificateManager,
  type CertificateManagerOptions,
  derToPem,
  type FetchedCertificate,
  generateKeyPair,
  type IdentityMaterial,
  issueCertificate,
  readCsr,
} from './index.js';

const START = Date.UTC(2026, 0, 1);
const HOUR = 3_600_000;
const id = (name: string | number) => `spiffe://cluster.local/ns/shop/sa/${name}`;

/** Time that stands still until told. */
class TestClock implements Clock {
  private now = START;
  /** What the wall clock is ahead of time. */
  private aheadMs = 0;
  private readonly timers = new Set<{ readonly atMs: number; readonly callback: () => void }>();

  nowMs(): number {
    return this.now + this.aheadMs;
  }

  jump(ms: number): void {
    this.aheadMs += ms;
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.now + Math.max(delayMs, 0), callback };
    this.timers.add(timer);
    return () => this.timers.delete(timer);
  }

  /** Lets time pass, timer by timer, and everything that they start. */
  async pass(ms: number): Promise<void> {
    const until = this.now + ms;
    for (;;) {
      await settle();
      const due = [...this.timers].filter((one) => one.atMs <= until).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.timers.delete(due);
      this.now = Math.max(this.now, due.atMs);
      due.callback();
    }
    this.now = until;
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

class Bench {
  readonly clock = new TestClock();
  readonly keys = generateKeyPair();
  readonly root = issueCertificate(
    {
      publicKey: this.keys.publicKey,
      organization: 'root',
      notBeforeMs: START - HOUR,
      notAfterMs: START + 1e11,
      ca: {},
    },
    { privateKey: this.keys.privateKey },
  );
  readonly asked: { readonly identity: string; readonly atMs: number; readonly csr: string }[] = [];
  readonly events: string[] = [];
  readonly materials: IdentityMaterial[] = [];
  readonly manager: CertificateManager;
  answer: (identity: string, csr: string) => Promise<FetchedCertificate>;

  constructor(options: CertificateManagerOptions = {}, random = () => 0.5) {
    this.answer = async (identity, csr) => this.sign(identity, csr);
    this.manager = new CertificateManager(options, {
      fetch: (identity, csr) => {
        this.asked.push({ identity, atMs: this.clock.nowMs() - START, csr });
        return this.answer(identity, csr);
      },
      clock: this.clock,
      log: createLog({ level: 'silent', component: 'test' }),
      random,
    });
    this.manager.subscribe({
      onCertificate: (identity, material) => {
        this.events.push(`${identity.split('/').at(-1)} got`);
        this.materials.push(material);
      },
      onGone: (identity, cause) => void this.events.push(`${identity.split('/').at(-1)} ${cause}`),
    });
  }

  /** The wall clock is set; no time passes. */
  jump(ms: number): void {
    this.clock.jump(ms);
  }

  /** What a CA does. */
  sign(
    identity: string,
    csr: string,
    over: { key?: boolean; lifetimeMs?: number; ageMs?: number; otherRoot?: boolean } = {},
  ): FetchedCertificate {
    const nowMs = this.clock.nowMs();
    const ageMs = over.ageMs ?? 0;
    const publicKey = over.key === false ? generateKeyPair().publicKey : readCsr(csr).publicKey;
    const leaf = issueCertificate(
      {
        publicKey,
        uris: [identity],
        notBeforeMs: nowMs - ageMs,
        notAfterMs: nowMs - ageMs + (over.lifetimeMs ?? 24 * HOUR),
      },
      { privateKey: this.keys.privateKey, certificate: this.root },
    );
    const roots = over.otherRoot === true ? new Bench().root : this.root;
    return { chain: [derToPem(leaf, 'CERTIFICATE')], roots: derToPem(roots, 'CERTIFICATE') };
  }
}

describe('getting a certificate', () => {
  test('once per identity, for a key of our own that never leaves', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    bench.manager.prefetch(id('a'));
    expect(bench.manager.require(id('a'))).toBeNull();
    await settle();
    const material = bench.manager.require(id('a'))!;
    expect(bench.asked).toHaveLength(1);
    expect(readCsr(bench.asked[0]!.csr).uris).toEqual([id('a')]);
    expect(bench.materials).toEqual([material]);
    expect(material.trustBundle).toEqual([bench.root]);
    expect(material.notAfterMs).toBe(START + 24 * HOUR);
    expect(JSON.stringify(bench.manager.dump())).not.toContain(material.privateKey.toString('base64'));
    expect(bench.manager.dump()).toEqual([
      {
        identity: id('a'),
        state: 'valid',
        activity: 'idle',
        serial: material.serial,
        notBefore: '2026-01-01T00:00:00.000Z',
        notAfter: '2026-01-02T00:00:00.000Z',
        failures: 0,
        lastError: null,
      },
    ]);
  });

  test('not for what is no identity', () => {
    expect(() => new Bench().manager.prefetch('spiffe://x')).toThrow(
      expect.objectContaining({ code: 'BAD_SPIFFE_ID' }),
    );
  });

  test('8 at once, a waiting connection first, then warm-up in order', async () => {
    const bench = new Bench();
    const release: (() => void)[] = [];
    bench.answer = (identity, csr) =>
      new Promise((resolve) => release.push(() => resolve(bench.sign(identity, csr))));
    for (let i = 0; i < 12; i++) bench.manager.prefetch(id(i));
    bench.manager.require(id(11));
    bench.manager.require(id('live'));
    const names = () => bench.asked.map((one) => one.identity.split('/').at(-1));
    expect(names()).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
    for (let i = 0; i < 5; i++) {
      release.shift()!();
      await settle();
    }
    expect(names().slice(8)).toEqual(['11', 'live', '8', '9', '10']);
    expect(bench.manager.dump().filter((one) => one.activity === 'fetching')).toHaveLength(8);
  });

  test.each([
    ['of somebody else', (bench: Bench, csr: string) => bench.sign(id('mallory'), csr), 'names'],
    [
      'for another key',
      (bench: Bench, csr: string) => bench.sign(id('a'), csr, { key: false }),
      'not for our key',
    ],
    [
      'of another root',
      (bench: Bench, csr: string) => bench.sign(id('a'), csr, { otherRoot: true }),
      'no root of the bundle',
    ],
    [
      'that has expired',
      (bench: Bench, csr: string) => bench.sign(id('a'), csr, { ageMs: 2000, lifetimeMs: 1000 }),
      'expired',
    ],
    ['that is none', () => ({ chain: ['x'], roots: '' }), 'PEM'],
    [
      'that is empty',
      (bench: Bench, csr: string) => ({ ...bench.sign(id('a'), csr), chain: [] }),
      'no certificate',
    ],
  ] as [string, (bench: Bench, csr: string) => FetchedCertificate, string][])(
    'an answer %s is refused',
    async (_, answer, reason) => {
      const bench = new Bench();
      bench.answer = async (_identity, csr) => answer(bench, csr);
      bench.manager.prefetch(id('a'));
      await settle();
      expect(bench.manager.current(id('a'))).toBeNull();
      expect(bench.manager.dump()[0]).toMatchObject({ state: 'missing', failures: 1 });
      expect(bench.manager.dump()[0]!.lastError).toContain(reason);
    },
  );
});

describe('failures', () => {
  test.each([
    [0.5, [0, 750, 2250, 5250]],
    [0, [0, 500, 1300, 2900]],
    [0.999, [0, 1000, 3397, 8193]],
  ])('backs off from 0.5-1 s, doubling, +-20 %% (random %d)', async (random, times) => {
    const bench = new Bench({}, () => random);
    bench.answer = async () => {
      throw new Error('CA is down');
    };
    bench.manager.prefetch(id('a'));
    await bench.clock.pass(20_000);
    bench.asked.slice(0, 4).forEach((one, i) => {
      expect(Math.abs(one.atMs - times[i]!)).toBeLessThan(5);
    });
  });

  test('waits 150 s at most, and a live connection does not shorten it', async () => {
    const bench = new Bench();
    bench.answer = async () => {
      throw new Error('CA is down');
    };
    bench.manager.prefetch(id('a'));
    await bench.clock.pass(2 * HOUR);
    const gaps = bench.asked.slice(1).map((one, i) => one.atMs - bench.asked[i]!.atMs);
    expect(Math.max(...gaps)).toBe(150_000);
    expect(gaps.at(-1)).toBe(150_000);
    const before = bench.asked.length;
    bench.manager.require(id('a'));
    await settle();
    expect(bench.asked).toHaveLength(before);
    bench.answer = async (identity, csr) => bench.sign(identity, csr);
    await bench.clock.pass(150_000);
    expect(bench.events).toEqual(['a got']);
  });

  test('an answer that does not come is a failure', async () => {
    const bench = new Bench({ fetchTimeoutMs: 5000 });
    bench.answer = () => new Promise(() => {});
    bench.manager.prefetch(id('a'));
    await bench.clock.pass(5000);
    expect(bench.manager.dump()[0]).toMatchObject({ failures: 1, activity: 'backing-off' });
  });

  test("a listener's error is not the CA's", async () => {
    const bench = new Bench();
    bench.manager.subscribe({
      onCertificate: () => {
        throw new Error('listener');
      },
      onGone: () => {},
    });
    bench.manager.prefetch(id('a'));
    await settle();
    expect(bench.manager.dump()[0]).toMatchObject({ state: 'valid', failures: 0 });
  });
});

describe('renewal', () => {
  test('at half life less up to 10 %, with a new key', async () => {
    for (const [random, atHours] of [
      [0, 12],
      [0.999, 9.6],
    ] as const) {
      const bench = new Bench({}, () => random);
      bench.manager.prefetch(id('a'));
      await bench.clock.pass(12 * HOUR);
      expect(bench.asked).toHaveLength(2);
      expect(bench.asked[1]!.atMs / HOUR).toBeCloseTo(atHours, 1);
      expect(bench.materials[1]!.privateKey).not.toEqual(bench.materials[0]!.privateKey);
      expect(bench.manager.current(id('a'))).toBe(bench.materials[1]);
    }
  });

  test('that fails: the old one stays until it expires, then there is none', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    await settle();
    bench.answer = async () => {
      throw new Error('CA is down');
    };
    await bench.clock.pass(24 * HOUR - 1);
    expect(bench.manager.require(id('a'))).toBe(bench.materials[0]);
    await bench.clock.pass(2);
    expect(bench.manager.require(id('a'))).toBeNull();
    expect(bench.events).toEqual(['a got', 'a expired']);
    bench.answer = async (identity, csr) => bench.sign(identity, csr);
    await bench.clock.pass(150_000);
    expect(bench.events).toEqual(['a got', 'a expired', 'a got']);
  });

  test('of certificates that come past their half does not ask in a loop', async () => {
    const bench = new Bench();
    bench.answer = async (identity, csr) => bench.sign(identity, csr, { lifetimeMs: 1000 });
    bench.manager.prefetch(id('a'));
    await bench.clock.pass(10_000);
    expect(bench.asked.length).toBeLessThanOrEqual(21);
  });
});

describe('forgetting', () => {
  test('ends timers, drops late answers, and tells', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    await settle();
    bench.manager.forget(id('a'));
    expect(bench.events).toEqual(['a got', 'a forgotten']);
    let late = () => {};
    bench.answer = (identity, csr) =>
      new Promise((resolve) => {
        late = () => resolve(bench.sign(identity, csr));
      });
    bench.manager.prefetch(id('b'));
    bench.manager.forget(id('b'));
    late();
    await bench.clock.pass(48 * HOUR);
    expect(bench.events).toEqual(['a got', 'a forgotten']);
    expect(bench.asked).toHaveLength(2);
    expect(bench.manager.dump()).toEqual([]);
  });

  test('and wanting again starts anew', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    bench.manager.forget(id('a'));
    bench.manager.prefetch(id('a'));
    await settle();
    expect(bench.asked).toHaveLength(2);
    expect(bench.events).toEqual(['a got']);
    bench.manager.close();
    await bench.clock.pass(48 * HOUR);
    expect(bench.asked).toHaveLength(2);
  });
});

describe('a trust bundle that is pushed', () => {
  const otherRoot = () => new Bench().root;

  test('is in force at once for what is there, and every certificate is renewed soon', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    bench.manager.prefetch(id('b'));
    await settle();
    const both = [bench.root, otherRoot()];
    const before = bench.manager.current(id('a'))!;
    bench.manager.setTrustBundle(both);
    expect(bench.manager.current(id('a'))).toEqual({ ...before, trustBundle: both });
    expect(bench.events).toEqual(['a got', 'b got', 'a got', 'b got']);
    await bench.clock.pass(2_000);
    expect(bench.asked).toHaveLength(4);
    expect(bench.materials.at(-1)!.trustBundle).toEqual(both);
    bench.manager.setTrustBundle([...both]);
    await bench.clock.pass(10_000);
    expect(bench.asked).toHaveLength(4);
  });

  test('that says what is known already changes nothing', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    await settle();
    bench.manager.setTrustBundle([bench.root]);
    await bench.clock.pass(10_000);
    expect([bench.asked.length, bench.events]).toEqual([1, ['a got']]);
  });

  test('counts for later certificates too; a leaf of a root that the push does not know brings its own', async () => {
    const bench = new Bench();
    const [other, both] = [otherRoot(), [otherRoot(), bench.root]];
    bench.manager.setTrustBundle(both);
    bench.manager.prefetch(id('a'));
    await settle();
    expect(bench.manager.current(id('a'))!.trustBundle).toEqual(both);
    bench.manager.setTrustBundle([other]);
    await bench.clock.pass(2_000);
    expect(bench.manager.current(id('a'))!.trustBundle).toEqual([other, bench.root]);
  });

  test('that comes while a certificate is being fetched has it fetched again', async () => {
    const bench = new Bench();
    const release: (() => void)[] = [];
    bench.answer = (identity, csr) =>
      new Promise((resolve) => release.push(() => resolve(bench.sign(identity, csr))));
    bench.manager.setTrustBundle([bench.root]);
    bench.manager.prefetch(id('a'));
    bench.manager.setTrustBundle([bench.root, otherRoot()]);
    release.shift()!();
    await bench.clock.pass(2_000);
    expect(bench.asked).toHaveLength(2);
  });
});

describe('a wall clock that jumps', () => {
  test('ahead, past the renewal: renewed within half a minute', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    await settle();
    bench.jump(13 * HOUR);
    await bench.clock.pass(30_000);
    expect(bench.asked).toHaveLength(2);
    expect(bench.manager.current(id('a'))!.notAfterMs).toBeGreaterThan(START + 36 * HOUR);
  });

  test('ahead, past the end: the certificate is not used any more, and comes back by itself', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    await settle();
    bench.answer = () => Promise.reject(new Error('the controller is away'));
    bench.jump(25 * HOUR);
    await bench.clock.pass(30_000);
    expect([bench.manager.current(id('a')), bench.events.at(-1)]).toEqual([null, 'a expired']);
    bench.answer = async (identity, csr) => bench.sign(identity, csr);
    await bench.clock.pass(150_000);
    expect(bench.events.at(-1)).toBe('a got');
  });

  test('back: renewed when the time has passed all the same', async () => {
    const bench = new Bench();
    bench.manager.prefetch(id('a'));
    await settle();
    bench.jump(-HOUR);
    await bench.clock.pass(12 * HOUR);
    expect(bench.asked).toHaveLength(2);
  });
});

test('the controller is back: what waits after failures is asked for at once', async () => {
  const bench = new Bench();
  bench.answer = () => Promise.reject(new Error('away'));
  bench.manager.prefetch(id('a'));
  await bench.clock.pass(200_000);
  const tries = bench.asked.length;
  bench.answer = async (identity, csr) => bench.sign(identity, csr);
  bench.manager.retryNow();
  await settle();
  expect([bench.asked.length, bench.events]).toEqual([tries + 1, ['a got']]);
  bench.manager.retryNow();
  await settle();
  expect(bench.asked).toHaveLength(tries + 1);
});
