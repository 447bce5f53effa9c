import { describe, expect, test } from '@jest/globals';
import { HboneLab } from '../../test/support/hbone.js';

describe('a tunnel', () => {
  test('carries bytes both ways, with what the headers say', async () => {
    using lab = new HboneLab();
    const client = lab.open('127.0.0.1:8080', lab.hop(), {
      baggage: { namespace: 'shop', workloadType: 'pod', workloadName: 'client' },
      forwardedFor: { address: '10.0.0.9', port: 4321 },
      forwardedHost: 'web.shop.svc.cluster.local',
    });
    client.send('hello');
    await lab.t.until(() => client.received.toString() === 'hello');
    expect(client.events).toEqual(['established']);
    expect(client.response).toEqual({
      baggage: { namespace: 'shop', workloadType: 'pod', workloadName: 'server' },
    });
    const [request] = lab.acceptor.requests;
    expect(request).toMatchObject({
      authority: '127.0.0.1:8080',
      address: { address: '127.0.0.1', port: 8080 },
      host: null,
      peerIdentity: 'spiffe://cluster.local/ns/shop/sa/client',
      local: { address: '127.0.0.1', port: lab.listening.port },
      metadata: {
        baggage: { namespace: 'shop', workloadType: 'pod', workloadName: 'client' },
        forwardedFor: { address: '10.0.0.9', port: 4321 },
        forwardedHost: 'web.shop.svc.cluster.local',
        traceparent: expect.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/),
      },
    });
    client.send('', true);
    await lab.t.until(() => client.has('end'));
    expect(client.events).toEqual(['established', 'end']);
    expect(client.tunnel!.isOpen).toBe(false);
  });
});
