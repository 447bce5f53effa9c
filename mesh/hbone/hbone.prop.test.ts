import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CLIENT_ID, type Decide, echo, HboneLab, type TunnelRecorder } from '../../test/support/hbone.js';
import { WireProxy } from '../../test/support/wire-proxy.js';

/** What may happen, in any order; `n` picks the tunnel, the source or the size. */
const STEPS = [
  'open',
  'open',
  'open',
  'send',
  'send',
  'end',
  'reset',
  'server reset',
  'server end',
  'refuse next',
  'renew',
  'source gone',
  'cut',
  'turn',
  'turn',
] as const;
type Step = readonly [step: (typeof STEPS)[number], n: number];

class Run {
  readonly lab: HboneLab;
  readonly tunnels: TunnelRecorder[] = [];
  private refusals = 0;

  constructor() {
    const decide: Decide = (request, handler) => {
      if (this.refusals > 0) {
        this.refusals--;
        request.refuse(503);
      } else echo(request, handler);
    };
    this.lab = new HboneLab({ decide, client: { maxTunnelsPerConnection: 3, maxWaitingTunnels: 6 } });
  }

  async step([step, n]: Step, wire: WireProxy): Promise<void> {
    const { lab, tunnels } = this;
    const tunnel = tunnels[n % Math.max(tunnels.length, 1)];
    const servers = lab.acceptor.handlers.filter((one) => one.tunnel !== null);
    const server = servers[n % Math.max(servers.length, 1)];
    switch (step) {
      case 'open': {
        const hop = { sourceUid: `pod-${n % 2}`, address: { address: '127.0.0.1', port: wire.port } };
        tunnels.push(lab.open('127.0.0.1:80', lab.hop(hop)));
        return;
      }
      case 'send':
        return tunnel?.send(Buffer.alloc((n * 7919) % 200_000, 'x'));
      case 'end':
        return tunnel?.send('', true);
      case 'reset':
        tunnel?.events.push('own reset');
        return tunnel?.tunnel?.reset();
      case 'server reset':
        return server?.tunnel?.reset();
      case 'server end':
        return server?.send('', true);
      case 'refuse next':
        this.refusals++;
        return;
      case 'renew':
        lab.clientTls.set(CLIENT_ID, lab.context(lab.ca.issue(CLIENT_ID)));
        return;
      case 'source gone':
        return lab.client.closeSource(`pod-${n % 2}`);
      case 'cut':
        return wire.cut();
      case 'turn':
        return lab.t.for(n % 8);
    }
  }
}

/** All that a tunnel's owner may ever hear, in this order; after its own reset nothing. */
const STORY = /^(?:failed|established(?: end)?(?: reset)?)?(?: ?own reset)*$/;

test('whatever happens, each tunnel hears one story with one end, and nothing is left', async () => {
  const steps = fc.array(fc.tuple(fc.constantFrom(...STEPS), fc.nat(1000)), { minLength: 20, maxLength: 60 });
  const property = fc.asyncProperty(steps, async (list) => {
    const run = new Run();
    using lab = run.lab;
    using wire = await WireProxy.to(lab.listening.port);
    for (const step of list) await run.step(step, wire);
    let drained = 0;
    lab.client.drain(20, () => drained++);
    await lab.t.until(() => drained === 1 && lab.server.connectionCount === 0, 'the end');
    expect(lab.client.stats).toEqual({ connections: 0, tunnels: 0, waitingTunnels: 0 });
    expect(lab.t.logged).toEqual([]);
    for (const one of run.tunnels) {
      const story = one.events.join(' ');
      expect(story).toMatch(STORY);
      expect(one.isDone || one.has('own reset')).toBe(true);
      expect(one.tunnel!.isOpen).toBe(false);
    }
    for (const one of lab.acceptor.handlers) {
      expect(one.events.join(' ')).toMatch(/^(?:(end )?reset|end)?$/);
      expect(one.tunnel?.isOpen ?? false).toBe(false);
    }
  });
  await fc.assert(property, { seed: 20260803, numRuns: 60, interruptAfterTimeLimit: 20_000 });
}, 60_000);
