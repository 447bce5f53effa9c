import { expect, test } from '@jest/globals';
import { pemToDer } from '../../mesh/identity/index.js';
import { checkStep, readMaterial } from '../ca/index.js';
import {
  firstRoot,
  newSecret,
  nextStep,
  type OwnRoot,
  ownRootOf,
  partOf,
  ROTATE_ANNOTATION,
  type SecretObject,
  secretOf,
} from './root-secret.js';

const HOUR = 3_600_000;
const START = Date.now();
const at = (hours: number) => ({ trustDomain: 'td', overlapMs: HOUR, nowMs: START + hours * HOUR });
const first = firstRoot('td', START);
const secret = newSecret('mesh', 'ca', first);
const materialOf = (of: SecretObject, hours = 0) =>
  readMaterial((name) => partOf(of, name), START + hours * HOUR);

test('a root comes out of its Secret as it went in', () => {
  expect(ownRootOf(secret)).toEqual(first);
  const rotated: OwnRoot = {
    ...first,
    next: firstRoot('td', START).signer,
    previous: [firstRoot('td', START).signer.certificate],
    announcedAtMs: START - (START % 1000),
  };
  const again = secretOf(secret, rotated);
  expect(ownRootOf(again)).toEqual(rotated);
  expect(ownRootOf(secretOf(again, first))).toEqual(first);
  expect(materialOf(again).roots).toHaveLength(3);
  expect(ownRootOf({ ...secret, data: {} })).toBeNull();
  expect(pemToDer(partOf(secret, 'ca-cert.pem')!.text, 'CERTIFICATE')).toHaveLength(1);
});

test('one follows another in three steps, each of which agents survive', () => {
  const annotations = { [ROTATE_ANNOTATION]: '' };
  let now = { ...secret, metadata: { ...secret.metadata, annotations } };
  const seen: [bySame: boolean, roots: number][] = [];
  for (const hours of [0, 0.5, 1.1, 1.5, 2.2, 3]) {
    const root = ownRootOf(now)!;
    const step = nextStep(root, at(hours));
    const before = materialOf(now, hours);
    now = step === root ? now : (secretOf(now, step) as typeof now);
    const after = materialOf(now, hours);
    checkStep(before, after);
    seen.push([step.signer.certificate === first.signer.certificate, after.roots.length]);
  }
  expect(seen).toEqual([
    [true, 2],
    [true, 2],
    [false, 2],
    [false, 2],
    [false, 1],
    [false, 1],
  ]);
  expect(now.metadata.annotations).toEqual({});
  expect(Object.keys(now.data!).sort()).toEqual(['ca-cert.pem', 'ca-key.pem', 'root-cert.pem']);
});

test('near its end it is followed by itself; a wish while that is under way changes nothing', () => {
  expect(nextStep(first, at(7.9 * 365 * 24))).toBe(first);
  const announced = nextStep(first, at(8.1 * 365 * 24));
  expect(announced.next).not.toBeNull();
  const wished = { ...announced, isRotationWanted: true };
  expect(nextStep(wished, at(8.1 * 365 * 24))).toEqual(announced);
});

test('a next root that somebody put there himself is announced first', () => {
  const given = { ...first, next: firstRoot('td', START).signer };
  const step = nextStep(given, at(5));
  expect(step).toEqual({ ...given, announcedAtMs: START + 5 * HOUR });
  expect(nextStep(step, at(5.5))).toBe(step);
});
