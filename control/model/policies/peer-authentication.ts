import type { Fields } from '../../../mesh/manifests/index.js';
import { readCreatedAt } from '../limits.js';
import { readSelector } from './selector.js';
import type { MtlsMode, PeerAuthentication } from './types.js';

const MODES = ['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT'] as const;

/** Reads a PeerAuthentication (mesh-apis.md 2.6). Of one that is invalid: STRICT, wherever it may have been meant to apply. */
export function decodePeerAuthentication(
  fields: Fields,
  namespace: string,
  name: string,
): PeerAuthentication {
  const { problems } = fields;
  const createdAt = readCreatedAt(fields.object('metadata'));
  const spec = fields.object('spec').only(['selector', 'mtls', 'portLevelMtls']);
  const before = problems.length;
  const readable = readSelector(spec);
  const selector = problems.length > before ? null : readable;
  const mode = modeOf(spec.object('mtls'));
  const ports = portsOf(spec.object('portLevelMtls'));
  if (ports.length > 0 && readable === null) spec.wrong('portLevelMtls', 'needs a selector with labels');
  const meta = { kind: 'PeerAuthentication', namespace, name, createdAt, selector } as const;
  return problems.length > 0
    ? { ...meta, mode: 'STRICT', ports: [], isUnreadable: true }
    : { ...meta, mode, ports, isUnreadable: false };
}

function modeOf(mtls: Fields): MtlsMode {
  return mtls.only(['mode']).choice('mode', MODES, 'UNSET');
}

function portsOf(levels: Fields): PeerAuthentication['ports'] {
  return levels.only(levels.keys).keys.map((text) => {
    const port = Number(text);
    if (!/^[1-9]\d*$/.test(text) || port > 65535) levels.wrong(text, 'must be a port from 1 to 65535');
    return { port, mode: modeOf(levels.object(text)) };
  });
}
