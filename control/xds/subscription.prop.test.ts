import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ResourceSet } from './resource-set.js';
import { Subscription } from './subscription.js';
import type { DeltaRequest, ResourceContent } from './types.js';

/** A client as the protocol describes it: it holds what it is sent, forgets what is removed, and remembers versions over a reconnect. */
class ModelClient {
  readonly held = new Map<string, string>();
  readonly names = new Set<string>();
  readonly wildcard: boolean;
  #subscription: Subscription;
  readonly #set: ResourceSet;

  constructor(set: ResourceSet, wildcard: boolean) {
    this.#set = set;
    this.wildcard = wildcard;
    this.#subscription = this.#connect();
    this.pull();
  }

  reconnect(): void {
    this.#subscription.close();
    this.#subscription = this.#connect();
    this.pull();
  }

  subscribe(name: string): void {
    this.names.add(name);
    this.#subscription.change({ resourceNamesSubscribe: [name] });
  }

  unsubscribe(name: string): void {
    this.names.delete(name);
    this.#subscription.change({ resourceNamesUnsubscribe: [name] });
    for (const held of this.held.keys()) if (!this.#isWanted(held)) this.held.delete(held);
  }

  pull(): void {
    const push = this.#subscription.next();
    if (push === 'lost') throw new Error('lost');
    for (const { name, version } of push?.resources ?? []) {
      expect(this.#isWanted(name)).toBe(true);
      this.held.set(name, version);
    }
    for (const name of push?.removed ?? []) this.held.delete(name);
  }

  /** What it must hold after a pull. */
  expected(): Map<string, string> {
    const entries = [...this.#set.all()].filter(({ name }) => this.#isWanted(name));
    return new Map(entries.map(({ name, version }) => [name, version]));
  }

  #isWanted(name: string): boolean {
    return this.wildcard || (this.#set.get(name)?.keys ?? [name]).some((key) => this.names.has(key));
  }

  #connect(): Subscription {
    const request: DeltaRequest = {
      initialResourceVersions: Object.fromEntries(this.held),
      ...(this.wildcard
        ? {}
        : { resourceNamesSubscribe: ['*', ...this.names], resourceNamesUnsubscribe: ['*'] }),
    };
    // What it holds by a name that it has not subscribed to itself counts as subscribed from now on.
    if (!this.wildcard) for (const name of this.held.keys()) this.names.add(name);
    return new Subscription(this.#set, request, { maxNames: 1000 });
  }
}

const name = fc.constantFrom('a', 'b', 'c', 's', 't');
const step = fc.oneof(
  fc.record({
    do: fc.constant('set' as const),
    name,
    value: fc.integer({ min: 0, max: 2 }),
    aliases: fc.subarray(['n/1', 'n/2']),
    follows: fc.subarray(['s', 't']),
  }),
  fc.record({ do: fc.constant('remove' as const), name }),
  fc.record({
    do: fc.constantFrom('subscribe' as const, 'unsubscribe' as const),
    name: fc.oneof(name, fc.constantFrom('n/1', 'n/2', 'none')),
  }),
  fc.record({ do: fc.constantFrom('pull' as const, 'reconnect' as const) }),
);

test('whatever happens, a client that pulls holds exactly what it wants, in its latest version', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const set = new ResourceSet({ typeUrl: 't' });
      const clients = [new ModelClient(set, true), new ModelClient(set, false)];
      for (const action of steps) {
        if (action.do === 'set') {
          const { name, aliases, follows, value } = action;
          const content: ResourceContent = {
            name,
            aliases,
            follows: follows.filter((other) => other !== name),
            value: Buffer.of(value),
          };
          set.update(new Map([[name, content]]));
        } else if (action.do === 'remove') set.update(new Map([[action.name, null]]));
        else if (action.do === 'subscribe') clients[1]!.subscribe(action.name);
        else if (action.do === 'unsubscribe') clients[1]!.unsubscribe(action.name);
        else for (const client of clients) client[action.do]();
      }
      for (const client of clients) {
        client.pull();
        expect(new Map([...client.held].sort())).toEqual(new Map([...client.expected()].sort()));
      }
    }),
    { seed: 7, numRuns: 2000 },
  );
});
