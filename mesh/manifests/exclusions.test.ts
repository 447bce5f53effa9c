import { describe, expect, test } from '@jest/globals';
import { EXCLUSION_ANNOTATIONS as names, readAnnotations, remarkOnAnnotations } from './exclusions.js';
import { Fields } from './fields.js';

const noExclusions = { outboundPorts: [], outboundRanges: [], inboundPorts: [] };

describe('annotations of a pod', () => {
  test('none: nothing is excluded, DNS is captured', () => {
    expect(readAnnotations({})).toEqual({ exclusions: noExclusions, dnsCapture: true, fault: null });
  });

  test('all of them, canonical and without doubles', () => {
    const annotations = {
      [names.outboundPorts]: ' 9000, 80,80 ',
      [names.outboundRanges]: '10.1.2.3/16,192.0.2.1,FD00::1/8',
      [names.inboundPorts]: '',
      [names.dnsCapture]: 'false',
    };
    expect(readAnnotations(annotations)).toEqual({
      exclusions: {
        outboundPorts: [80, 9000],
        outboundRanges: ['10.1.0.0/16', '192.0.2.1/32', 'fd00::/8'],
        inboundPorts: [],
      },
      dnsCapture: false,
      fault: null,
    });
  });

  test('bypass-inbound-capture is every port', () => {
    const { exclusions } = readAnnotations({ [names.bypassInbound]: 'true', [names.inboundPorts]: '80' });
    expect(exclusions.inboundPorts).toEqual([0]);
  });

  test.each([
    [names.outboundPorts, '0', /"0"/],
    [names.outboundPorts, '65536', /"65536"/],
    [names.outboundPorts, '80-90', /"80-90"/],
    [names.outboundPorts, '*', /"\*"/],
    [names.outboundPorts, '80,', /""/],
    [names.inboundPorts, '15008', /15008/],
    [names.outboundRanges, '10.0.0.0/33', /10\.0\.0\.0\/33/],
    [names.outboundRanges, '10.0.0.0/8/8', /10\.0\.0\.0/],
    [names.outboundRanges, 'example.com', /example\.com/],
    [names.outboundRanges, '*', /"\*"/],
    [names.bypassInbound, 'yes', /"yes"/],
    [names.dnsCapture, 'True', /"True"/],
    [names.outboundPorts, Array.from({ length: 257 }, (_, i) => i + 1).join(), /257/],
  ])('%s: %s is a fault, and then nothing is excluded', (name, value, said) => {
    const read = readAnnotations({
      [names.dnsCapture]: 'false',
      [names.bypassInbound]: 'true',
      [name]: value,
    });
    expect(read.exclusions).toEqual(noExclusions);
    expect(read.fault!.name).toBe(name);
    expect(read.fault!.reason).toMatch(said);
  });

  test('what cannot be followed is a problem, a name that is not known a notice', () => {
    const annotations = {
      [names.outboundPorts]: 'http',
      'traffic.sidecar.istio.io/excludeOutboundPort': '80',
      'traffic.sidecar.istio.io/includeInboundPorts': '80',
      'ambient.istio.io/redirection': 'enabled',
      'example.com/any': '',
    };
    const metadata = new Fields({ annotations }, ['metadata']);
    remarkOnAnnotations(metadata, annotations);
    expect(metadata.problems).toEqual([]);
    expect(metadata.remarks.map(({ path, reason, isProblem }) => [path.at(-1), reason, isProblem])).toEqual([
      [names.outboundPorts, 'has "http": must be ports from 1 to 65535, with commas between', true],
      [
        'traffic.sidecar.istio.io/excludeOutboundPort',
        `is not known: did you mean ${names.outboundPorts}?`,
        false,
      ],
      ['traffic.sidecar.istio.io/includeInboundPorts', 'is for sidecars', false],
    ]);
  });
});
