import { beforeEach, expect, test } from '@jest/globals';
import type { RawObject } from '../../mesh/manifests/index.js';
import { istio } from '../../mesh/proto/index.js';
import { decodeObject, type MeshObject, MODEL_DEFAULTS, Model } from '../model/index.js';
import { AddressTranslator, TRANSLATE_DEFAULTS, VipPool } from './index.js';

const { TunnelProtocol, WorkloadStatus } = istio.workload;
const RESOURCE = 'Kubernetes//Pod/shop/cart';

let model: Model;
let announced: string;

beforeEach(() => begin('annotation'));

/** A controller that knows nothing yet. */
function begin(captureSign: 'annotation' | 'label'): void {
  announced = 'nothing';
  const vips = new VipPool();
  model = new Model(MODEL_DEFAULTS, {
    onChange: (change) => {
      const update = translator.translate(change).get(RESOURCE);
      if (update === null) announced = 'nothing';
      const workload = update?.message.workload;
      if (workload == null) return;
      const isHbone = workload.tunnelProtocol === TunnelProtocol.HBONE;
      const isHealthy = workload.status !== WorkloadStatus.UNHEALTHY;
      announced = `${isHbone ? 'HBONE' : 'NONE'} ${isHealthy ? 'healthy' : 'unhealthy'}`;
    },
  });
  const translator = new AddressTranslator({ ...TRANSLATE_DEFAULTS, captureSign }, { model, vips });
}

function apply(...objects: readonly object[]): string {
  const upserted = new Map<string, MeshObject>();
  for (const object of objects) {
    const decoded = decodeObject(object as RawObject);
    if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
    upserted.set(decoded.key, decoded.value);
  }
  model.apply({ upserted, removed: [] });
  model.flush();
  return announced;
}

const namespace = (mode: string) => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': mode } },
});

function pod(how: { uid?: string; phase?: string; redirection?: string } = {}): object {
  const annotations =
    how.redirection === undefined ? {} : { 'ambient.istio.io/redirection': how.redirection };
  const phase = how.phase ?? 'Running';
  const ready = [{ type: 'Ready', status: phase === 'Running' ? 'True' : 'False' }];
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'cart', namespace: 'shop', uid: how.uid ?? 'one', annotations },
    spec: { nodeName: 'n1' },
    status: { phase, podIP: '10.0.0.1', conditions: ready },
  };
}

test('a pod that is created enrolled is never plain, and healthy once it is captured', () => {
  expect(apply(namespace('ambient'), pod({ phase: 'Pending' }))).toBe('HBONE unhealthy');
  expect(apply(pod())).toBe('HBONE unhealthy');
  expect(apply(pod({ redirection: 'pending' }))).toBe('HBONE unhealthy');
  expect(apply(pod({ redirection: 'enabled' }))).toBe('HBONE healthy');
  expect(apply(pod())).toBe('HBONE unhealthy');
});

test('a pod that is enrolled while it runs is plain until it is captured; another one of its name is not', () => {
  expect(apply(namespace('none'), pod())).toBe('NONE healthy');
  expect(apply(namespace('ambient'))).toBe('NONE healthy');
  expect(apply(pod({ redirection: 'enabled' }))).toBe('HBONE healthy');
  expect(apply(namespace('none'))).toBe('NONE healthy');
  expect(apply(namespace('ambient'), pod({ uid: 'two' }))).toBe('HBONE unhealthy');
});

test('a pod that is enrolled before it runs is never plain', () => {
  expect(apply(namespace('none'), pod({ phase: 'Pending' }))).toBe('NONE unhealthy');
  expect(apply(namespace('ambient'))).toBe('HBONE unhealthy');
  expect(apply(pod())).toBe('HBONE unhealthy');
});

test('a controller that has just begun knows of no pod that it ran plain', () => {
  expect(apply(namespace('ambient'), pod())).toBe('HBONE unhealthy');
});

test('an annotation alone enrols nobody', () => {
  expect(apply(namespace('none'), pod({ redirection: 'enabled' }))).toBe('NONE healthy');
});

test('from folders the label decides', () => {
  begin('label');
  expect(apply(namespace('ambient'), pod())).toBe('HBONE healthy');
});
