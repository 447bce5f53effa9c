import type { envoy } from '../../mesh/proto/index.js';
import type { Caller } from '../ca/types.js';

export interface NodeFault {
  readonly reason: 'node-missing' | 'node-mismatch';
  readonly message: string;
}

/**
 * Whether the client is who its token says (hbone-and-wds.md 3.1): the namespace in the node id
 * (`<type>~<ip>~<pod>.<ns>~<ns>.svc.<domain>`), and the metadata SERVICE_ACCOUNT and NODE_NAME where given. Null: it is.
 */
export function checkNode(
  node: envoy.config.core.v3.Node.$Properties | null | undefined,
  caller: Caller,
): NodeFault | null {
  if (node == null) return { reason: 'node-missing', message: 'the first request must have a node' };
  const parts = (node.id ?? '').split('~');
  if (parts.length !== 4)
    return { reason: 'node-missing', message: 'node.id must be <type>~<ip>~<pod>.<ns>~<ns>.svc.<domain>' };
  const claims: readonly (readonly [
    field: string,
    value: string | null | undefined,
    token: string | null,
  ])[] = [
    ['namespace of node.id', parts[3]!.split('.svc.')[0], caller.namespace],
    ['SERVICE_ACCOUNT', node.metadata?.fields?.['SERVICE_ACCOUNT']?.stringValue, caller.serviceAccount],
    ['NODE_NAME', node.metadata?.fields?.['NODE_NAME']?.stringValue, caller.nodeName],
  ];
  for (const [field, value, token] of claims)
    if (value != null && value !== '' && value !== token)
      return { reason: 'node-mismatch', message: `${field} differs from the token's '${token ?? ''}'` };
  return null;
}
