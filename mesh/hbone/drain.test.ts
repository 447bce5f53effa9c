import net from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { HboneLab, SERVER_ID } from '../../test/support/hbone.js';

describe('drain', () => {
  test('of the server: GOAWAY, open tunnels go on, new ones find no room, then it is over', async () => {
    using lab = new HboneLab();
    const client = await lab.established();
    let isDrained = false;
    lab.server.drain(10_000, () => {
      isDrained = true;
    });
    await lab.t.for(50);
    client.send('still here');
    await lab.t.until(() => client.received.toString() === 'still here');
    expect(isDrained).toBe(false);
    const late = lab.open();
    await lab.t.until(() => late.isDone);
    expect(late.events).toEqual(['failed']);
    client.send('', true);
    await lab.t.until(() => isDrained && client.isDone);
    expect(client.events).toEqual(['established', 'end']);
    await lab.t.until(() => lab.client.stats.connections === 0);
  });

  test('of the server: what is left at the deadline is cut', async () => {
    using lab = new HboneLab();
    const client = await lab.established();
    let isDrained = false;
    lab.server.drain(100, () => {
      isDrained = true;
    });
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['established', 'reset']);
    expect(isDrained).toBe(true);
  });

  test('of the server: a handshake under way is finished, and what it brought is served', async () => {
    using lab = new HboneLab();
    const client = lab.open();
    await lab.t.until(() => lab.server.connectionCount === 1);
    let isDrained = false;
    lab.server.drain(10_000, () => {
      isDrained = true;
    });
    await lab.t.until(() => client.has('established'));
    client.send('bye', true);
    await lab.t.until(() => client.has('end') && isDrained);
    expect(client.events).toEqual(['established', 'end']);
  });

  test.each(['close', 'retire', 'drain'] as const)(
    'of the server (%s): a connection in the middle of its handshake goes, too',
    async (way) => {
      using lab = new HboneLab();
      const socket = net.connect(lab.listening.port, '127.0.0.1').on('error', () => {});
      await lab.t.until(() => lab.server.connectionCount === 1);
      // A drain waits for it until its deadline.
      if (way === 'drain') lab.server.drain(200, () => {});
      else lab.server[way]();
      expect(lab.server.connectionCount).toBe(way === 'drain' ? 1 : 0);
      await lab.t.until(() => socket.destroyed);
      // Nothing is left but the listener.
      expect(lab.t.reactor.native.stats().connections).toBe(1);
    },
  );

  test('of the client: open tunnels go on to their end, and what was accepted before still gets one', async () => {
    using lab = new HboneLab();
    const client = await lab.established();
    let isDrained = false;
    lab.client.drain(10_000, () => {
      isDrained = true;
    });
    const late = lab.open();
    await lab.t.until(() => late.has('established'));
    expect(lab.client.stats.connections).toBe(2);
    client.send('bye', true);
    late.send('bye', true);
    await lab.t.until(() => client.has('end') && late.has('end'));
    await lab.t.until(() => isDrained);
    expect(lab.client.stats.connections).toBe(0);
    expect(client.events).toEqual(['established', 'end']);
  });

  test('of the client: at the deadline both sides see a reset', async () => {
    using lab = new HboneLab();
    const client = await lab.established();
    let isDrained = false;
    lab.client.drain(50, () => {
      isDrained = true;
    });
    await lab.t.until(() => isDrained && lab.acceptor.handlers[0]!.isDone);
    expect(client.events).toEqual(['established', 'reset']);
    expect(lab.acceptor.handlers[0]!.events).toEqual(['reset']);
  });

  test('of one that has nothing is over at once', () => {
    using lab = new HboneLab();
    const over: string[] = [];
    lab.client.drain(1000, () => over.push('client'));
    lab.server.drain(1000, () => over.push('server'));
    expect(over).toEqual(['client', 'server']);
  });

  test('a source that goes takes its tunnels along, waiting ones too, and no others', async () => {
    using lab = new HboneLab();
    const other = await lab.established('127.0.0.1:80', lab.hop({ sourceUid: 'other' }));
    const open = await lab.established();
    const waiting = lab.open('127.0.0.1:80', lab.hop({ expectedIdentities: [SERVER_ID, SERVER_ID] }));
    lab.client.closeSource(lab.hop().sourceUid);
    expect(open.events).toEqual(['established', 'reset']);
    expect(waiting.events).toEqual(['failed']);
    await lab.t.until(() => lab.server.connectionCount === 1);
    expect(lab.acceptor.handlers.filter((one) => one.resetCause !== null)).toHaveLength(1);
    expect(other.isDone).toBe(false);
    expect((await lab.established()).isDone).toBe(false);
  });
});
