import { describe, expect, test } from '@jest/globals';
import { isEnrolled } from './index.js';

const mode = (value: string | null) => ({
  labels: value === null ? {} : { 'istio.io/dataplane-mode': value },
});
const pod = (label: string | null) => ({
  namespace: 'shop',
  annotations: {},
  hostNetwork: false,
  ...mode(label),
});

describe('enrolment by label', () => {
  test.each([
    [null, null, false],
    [null, 'ambient', true],
    ['ambient', null, true],
    ['ambient', 'none', true],
    ['none', 'ambient', false],
    ['other', 'ambient', true],
    [null, 'other', false],
  ])('pod %s in namespace %s: %s', (podLabel, namespaceLabel, expected) => {
    expect(isEnrolled(pod(podLabel), mode(namespaceLabel))).toBe(expected);
  });

  test('a namespace that is not known says nothing', () => {
    expect(isEnrolled(pod(null), undefined)).toBe(false);
    expect(isEnrolled(pod('ambient'), undefined)).toBe(true);
  });

  test("never on the host's network, with a sidecar, or in an excluded namespace", () => {
    const sidecar = { 'sidecar.istio.io/status': '{}' };
    const namespace = mode('ambient');
    expect(isEnrolled({ ...pod('ambient'), hostNetwork: true }, namespace)).toBe(false);
    expect(isEnrolled({ ...pod('ambient'), annotations: sidecar }, namespace)).toBe(false);
    expect(isEnrolled({ ...pod('ambient'), namespace: 'kube-system' }, namespace)).toBe(false);
    expect(isEnrolled({ ...pod('ambient'), namespace: 'other' }, namespace, ['other'])).toBe(false);
  });
});
