import type { envoy, google } from '../proto/index.js';
import type { JsonValue, NodeOptions } from './types.js';

type Node = envoy.config.core.v3.Node.$Properties;
type Struct = google.protobuf.Struct.$Properties;
type Value = google.protobuf.Value.$Properties;

/** `Node` as ztunnel sends it, so that istiod takes us for one (sheet 3.1). */
export function nodeOf(options: NodeOptions): Node {
  const instanceIp = options.instanceIp ?? '1.1.1.1';
  const { podName, podNamespace } = options;
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: structOf({
      NAME: podName,
      NAMESPACE: podNamespace,
      INSTANCE_IPS: instanceIp,
      NODE_NAME: options.nodeName,
      ...options.metadata,
    }),
  };
}

/** google.protobuf.Struct of a JSON object. */
export function structOf(object: Readonly<Record<string, JsonValue>>): Struct {
  return {
    fields: Object.fromEntries(Object.entries(object).map(([name, value]) => [name, wireValueOf(value)])),
  };
}

function wireValueOf(value: JsonValue): Value {
  if (value === null) return { nullValue: 0 };
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'number') return { numberValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (isList(value)) return { listValue: { values: value.map(wireValueOf) } };
  return { structValue: structOf(value) };
}

function isList(value: object): value is readonly JsonValue[] {
  return Array.isArray(value);
}
