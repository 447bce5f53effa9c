import { beforeEach, expect, test } from '@jest/globals';
import { createLog } from '../../mesh/log/index.js';
import { localPodWith as pod } from '../../test/support/local-pod.js';
import type { PodSighting } from '../pods/index.js';
import { Enrolment, type PodPresence } from './enrolment.js';
import type { CapturedPod, LocalPod } from './types.js';
import { CaptureError } from './types.js';

const warned: string[] = [];
const destination = {
  write: (line: string) => void warned.push((JSON.parse(line) as { reason: string }).reason),
};
const log = createLog({ level: 'warn', component: 'test' }, { destination });
let steps: string[];
let enrolment: Enrolment;
let failOpen: boolean;
let failReady: boolean;
let failTable: boolean;
let ready: Promise<void>;

const seen = (inode: number | null, id = 7n): PodSighting => ({
  cgroup: { uid: 'u', path: '/c', id },
  namespace: inode === null ? null : { pid: 0, inode },
});

beforeEach(() => {
  steps = [];
  warned.length = 0;
  failOpen = false;
  failReady = false;
  failTable = false;
  ready = Promise.resolve();
  const presence = (inode: number, { addresses }: LocalPod): PodPresence => ({
    captured: { netnsCookie: BigInt(inode), addresses } as CapturedPod,
    steer: () => steps.push(`steer ${inode}`),
    unsteer: () => steps.push(`unsteer ${inode}`),
    closeListeners: () => steps.push(`close listeners ${inode}`),
    close: () => steps.push(`close ${inode}`),
  });
  enrolment = new Enrolment(
    { uid: 'u', unenrolGraceMs: 1 },
    {
      log,
      tables: {
        listCgroup: (id, kind) => steps.push(`list ${id} ${kind}`),
        unlistCgroup: (id) => steps.push(`unlist ${id}`),
        setCaptured: (cookie, { ipv4, ipv6 }) => {
          if (failTable) throw new Error('E2BIG');
          steps.push(`captured ${cookie} ${ipv4} ${ipv6}`);
        },
        setExclusions: (cookie, { outboundPorts }) => {
          if (outboundPorts.length > 0) steps.push(`exclude ${cookie} ${outboundPorts}`);
        },
        removeCaptured: (cookie) => steps.push(`uncaptured ${cookie}`),
        forgetNamespace: (cookie) => steps.push(`forget ${cookie}`),
      },
      openPresence: (entered, { inode }) => {
        if (failOpen) throw new CaptureError('ROUTE_LOCALNET', 'route_localnet is 1');
        steps.push(`open ${inode}`);
        return presence(inode, entered);
      },
      listener: {
        onCaptured: async () => {
          steps.push('ready?');
          await ready;
          if (failReady) throw new Error('no certificate');
          steps.push('ready');
        },
        onReleased: async (_, reason) => void steps.push(`released ${reason}`),
      },
    },
  );
});

const taken = () => steps.splice(0);
const enrol = ['open 1', 'ready?', 'ready', 'steer 1', 'captured 1 10.0.0.1 fd00::1', 'list 7 captured'];

test('enrol a new pod: steered before redirected, redirected before listed', async () => {
  await enrolment.update(pod(), seen(null));
  expect([enrolment.state, taken()]).toEqual(['waiting', ['unlist 7']]);
  await enrolment.update(pod(), seen(1));
  expect([enrolment.state, taken()]).toEqual(['captured', enrol]);
});

test('exclusions are written before anything is steered or redirected, and again when they change', async () => {
  const exclusions = { outboundPorts: [3306], outboundRanges: [], inboundPorts: [] };
  await enrolment.update(pod({ exclusions }), seen(1));
  expect(taken().slice(3)).toEqual([
    'exclude 1 3306',
    'steer 1',
    'captured 1 10.0.0.1 fd00::1',
    'list 7 captured',
  ]);
  await enrolment.update(pod({ exclusions: { ...exclusions, outboundPorts: [1] } }), seen(1));
  expect(taken()).toEqual(['exclude 1 1', 'captured 1 10.0.0.1 fd00::1', 'list 7 captured']);
});

test('an annotation that cannot be followed refuses a new pod, and leaves a captured one as it was', async () => {
  await enrolment.update(pod({ fault: 'bad ports' }), seen(1));
  expect([enrolment.state, enrolment.reason, taken()]).toEqual([
    'refused',
    'INVALID_POD: bad ports',
    ['unlist 7'],
  ]);
  await enrolment.update(pod(), seen(1));
  expect([enrolment.state, taken()]).toEqual(['captured', enrol]);
  warned.length = 0;
  await enrolment.update(pod({ fault: 'bad ports' }), seen(1));
  await enrolment.update(pod({ fault: 'bad ports' }), seen(1));
  expect([enrolment.state, enrolment.reason]).toEqual(['captured', 'bad ports']);
  expect(taken()).toEqual(['list 7 captured', 'list 7 captured']);
  expect(warned).toEqual(['bad ports']);
});

test('a plain pod stays plain until its capture is complete', async () => {
  await enrolment.update(pod({ enrolled: false, outside: 'label none' }), seen(null));
  expect([enrolment.state, enrolment.reason, taken()]).toEqual(['plain', 'label none', ['list 7 plain']]);
  await enrolment.update(pod(), seen(1));
  expect([enrolment.state, taken()]).toEqual(['captured', enrol]);
});

test('a plain pod that cannot be redirected stays plain no longer: it is refused', async () => {
  await enrolment.update(pod({ enrolled: false }), seen(null));
  taken();
  failTable = true;
  await enrolment.update(pod(), seen(1));
  expect([enrolment.state, taken()]).toEqual([
    'refused',
    ['open 1', 'ready?', 'ready', 'steer 1', 'unlist 7'],
  ]);
  failTable = false;
  await enrolment.update(pod(), seen(1));
  expect([enrolment.state, taken()]).toEqual([
    'captured',
    ['captured 1 10.0.0.1 fd00::1', 'list 7 captured'],
  ]);
  await enrolment.stop();
});

test('un-enrol: plain first, then no more redirected, then let go', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.update(pod({ enrolled: false }), seen(1));
  expect(enrolment.state).toBe('plain');
  expect(taken()).toEqual(['list 7 plain', 'uncaptured 1', 'unsteer 1', 'released unenrolled', 'close 1']);
});

test.each([
  ['cgroup gone', () => enrolment.update(pod(), null)],
  ['source has it no more', () => enrolment.update(null, seen(1))],
  ['both', () => enrolment.update(null, null)],
])('the end (%s): refused first, then let go', async (_, end) => {
  await enrolment.update(pod(), seen(1));
  taken();
  await end();
  expect(enrolment.state).toBe('absent');
  expect(taken()).toEqual([
    'unlist 7',
    'uncaptured 1',
    'unsteer 1',
    'released deleted',
    'close 1',
    'forget 1',
  ]);
  await enrolment.update(null, null);
  expect(enrolment.isOver).toBe(true);
});

test('a namespace replaced (sandbox restart): the old one is left, the new one captured', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.update(pod(), seen(2));
  expect(taken()).toEqual([
    ...['unlist 7', 'uncaptured 1', 'unsteer 1', 'released deleted', 'close 1', 'forget 1'],
    ...['open 2', 'ready?', 'ready', 'steer 2', 'captured 2 10.0.0.1 fd00::1', 'list 7 captured'],
  ]);
});

test('a cgroup made anew: the old entry goes, the new one is listed', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.update(pod(), seen(1, 8n));
  expect(taken()).toEqual(['unlist 7', 'list 8 captured']);
});

test('new addresses of a captured pod are written; nothing else is', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.update(pod({ addresses: ['10.0.0.2', 'fd00::1'] }), seen(1));
  expect(taken()).toEqual(['captured 1 10.0.0.2 fd00::1', 'list 7 captured']);
});

test('host network is plain, whatever the source says', async () => {
  await enrolment.update(pod({ hostNetwork: true }), seen(null));
  expect([enrolment.state, taken()]).toEqual(['plain', ['list 7 plain']]);
});

test('capture refused: no more plain, and tried again', async () => {
  await enrolment.update(pod({ enrolled: false }), seen(null));
  failOpen = true;
  taken();
  await enrolment.update(pod(), seen(1));
  expect([enrolment.state, taken()]).toEqual(['refused', ['unlist 7']]);
  expect(enrolment.reason).toMatch(/^ROUTE_LOCALNET/);
  failOpen = false;
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect([enrolment.state, taken()]).toEqual(['captured', enrol]);
});

test('workers that do not get ready: closed again, nothing redirected', async () => {
  failReady = true;
  await enrolment.update(pod(), seen(1));
  expect(enrolment.state).toBe('refused');
  expect(taken()).toEqual(['open 1', 'ready?', 'close 1', 'unlist 7']);
  await enrolment.stop();
});

test('what happens while workers get ready is acted upon afterwards', async () => {
  let resolveReady = (): void => {};
  ready = new Promise((resolve) => {
    resolveReady = resolve;
  });
  const first = enrolment.update(pod(), seen(1));
  void enrolment.update(pod({ enrolled: false }), seen(1));
  const last = enrolment.update(null, null);
  expect(taken()).toEqual(['open 1', 'ready?']);
  resolveReady();
  await Promise.all([first, last]);
  expect(taken().slice(-6)).toEqual([
    'unlist 7',
    'uncaptured 1',
    'unsteer 1',
    'released deleted',
    'close 1',
    'forget 1',
  ]);
  expect(enrolment.isOver).toBe(true);
});

test('stop closes descriptors and leaves the kernel as it is, also in the middle of a capture', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.stop();
  expect(taken()).toEqual(['close 1']);
});

test('a takeover that fails: nothing is done meanwhile, and all of it afterwards', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.hold();
  await enrolment.update(null, null);
  expect(taken()).toEqual([]);
  await enrolment.resume();
  expect(taken()).toEqual([
    'unlist 7',
    'uncaptured 1',
    'unsteer 1',
    'released deleted',
    'close 1',
    'forget 1',
  ]);
});

test('a takeover that fails: what the other agent may have changed is set right', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.hold();
  await enrolment.resume();
  expect(taken()).toEqual(['steer 1', 'captured 1 10.0.0.1 fd00::1', 'list 7 captured']);
  await enrolment.update(pod(), seen(1));
  expect(taken()).toEqual(['list 7 captured']);
});

test('a takeover: the listeners go, and the rest with the pod; the kernel is left to the next agent', async () => {
  await enrolment.update(pod(), seen(1));
  taken();
  await enrolment.hold();
  await enrolment.abdicate();
  expect(taken()).toEqual(['close listeners 1']);
  await enrolment.update(pod(), seen(1, 8n));
  expect(taken()).toEqual([]);
  await enrolment.update(pod({ enrolled: false }), seen(1, 8n));
  expect(taken()).toEqual(['released unenrolled', 'close 1']);
  await enrolment.update(pod(), seen(2, 8n));
  await enrolment.update(null, null);
  expect([taken(), enrolment.isOver]).toEqual([[], true]);
});

test('a step under way is waited for by a takeover', async () => {
  let go = () => {};
  ready = new Promise((resolve) => {
    go = resolve;
  });
  const update = enrolment.update(pod(), seen(1));
  const held = enrolment.hold();
  go();
  await Promise.all([update, held]);
  expect(taken()).toEqual(enrol);
});
