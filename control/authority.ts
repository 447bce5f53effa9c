import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Log } from '../mesh/log/index.js';
import { istio, PROXY_CONFIG_TYPE_URL } from '../mesh/proto/index.js';
import { type Authority, bundleOf, FilesAuthority, StateAuthority, writeFileAtomically } from './ca/index.js';
import type { ControllerOptions } from './options.js';
import type { XdsServer } from './xds/index.js';

/** How often the CA's files are looked at. */
const POLL_MS = 1000;

/** The CA of the options, given as files or our own. Throws CaError. */
export function openAuthority(options: ControllerOptions, log: Log): Authority {
  const deps = { log, nowMs: Date.now };
  const intervalMs = POLL_MS;
  if (options.caFiles !== '') return new FilesAuthority({ folder: options.caFiles, intervalMs }, deps);
  const { state: stateDir, trustDomain, rootOverlap: overlapMs } = options;
  return new StateAuthority({ stateDir, trustDomain, overlapMs, intervalMs }, deps);
}

/** Tells agents which roots are trusted, now and whenever that changes: those connected by xDS, those to come by the file. Returns how to stop. */
export function publishBundle(
  options: ControllerOptions,
  deps: { readonly authority: Authority; readonly xds: XdsServer; readonly log: Log },
): () => void {
  const { authority, xds, log } = deps;
  const file = options.rootCertificateFile || join(options.state, 'root-cert.pem');
  const publish = () => {
    writeBundle(file, bundleOf(authority.current), log);
    const value = istio.mesh.v1alpha1.ProxyConfig.encode({
      caCertificatesPem: [...authority.current.roots],
    }).finish();
    xds.update(
      PROXY_CONFIG_TYPE_URL,
      new Map([['default', { name: 'default', aliases: [], follows: [], value }]]),
    );
  };
  publish();
  return authority.subscribe(publish);
}

/** Those that are connected are told all the same. Throws nothing: a full disk is no reason not to serve. */
function writeBundle(file: string, text: string, log: Log): void {
  try {
    if (!existsSync(file) || readFileSync(file, 'utf8') !== text) writeFileAtomically(file, text, 0o644);
  } catch (error) {
    log.error({ err: error }, 'the trust bundle could not be written');
  }
}
