import { describe, expect, test } from '@jest/globals';
import { isEnrolled, whyOutside } from './index.js';

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

  test('says why not', () => {
    const namespace = mode('ambient');
    expect(whyOutside(pod(null), namespace)).toBe('');
    expect(whyOutside({ ...pod(null), hostNetwork: true }, namespace)).toBe('host network');
    expect(whyOutside(pod('none'), namespace)).toBe('label none');
    expect(whyOutside(pod(null), mode('none'))).toBe('namespace has label none');
    expect(whyOutside(pod(null), mode(null))).toBe('namespace not labelled');
    expect(whyOutside({ ...pod(null), namespace: 'kube-system' }, namespace)).toBe('namespace is excluded');
  });
});
