import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Log } from '../mesh/log/index.js';
import { istio, PROXY_CONFIG_TYPE_URL } from '../mesh/proto/index.js';
import { type Authority, bundleOf, FilesAuthority, StateAuthority, writeFileAtomically } from './ca/index.js';
import type { Cluster } from './cluster.js';
import {
  SECRET_AUTHORITY_DEFAULTS,
  SecretAuthority,
  SIGNER_DEFAULTS,
  SignerAuthority,
} from './cluster-ca/index.js';
import type { ControllerOptions } from './options.js';
import type { XdsServer } from './xds/index.js';

/** How often the CA's files are looked at. */
const POLL_MS = 1000;
/** How often its Secrets are: by each replica. */
const SECRET_POLL_MS = 5000;

export interface AuthorityDeps {
  readonly cluster: Cluster | null;
  readonly log: Log;
  /** Told why, while the API server is awaited. */
  readonly onWaiting: (reason: string) => void;
  readonly signal: AbortSignal;
}

/** The CA of the options: a signer of the cluster, files, a Secret, or a root in the state folder. Rejects with CaError. */
export async function openAuthority(
  options: ControllerOptions,
  { cluster, log, ...waiting }: AuthorityDeps,
): Promise<Authority> {
  const { caSigner, caRoots, caFiles, state: stateDir, trustDomain, rootOverlap: overlapMs } = options;
  const deps = { log, nowMs: Date.now };
  const intervalMs = POLL_MS;
  if (caFiles !== '') return new FilesAuthority({ folder: caFiles, intervalMs }, deps);
  if (cluster !== null) {
    const { client } = cluster;
    if (caSigner !== '')
      return new SignerAuthority(
        { ...SIGNER_DEFAULTS, signer: caSigner, rootsFile: caRoots },
        { ...deps, client },
      );
    // Each step of a rotation is to be seen by every replica before the next.
    const secretIntervalMs = Math.min(SECRET_POLL_MS, overlapMs / 4);
    return await SecretAuthority.open(
      {
        ...SECRET_AUTHORITY_DEFAULTS,
        namespace: options.namespace,
        trustDomain,
        overlapMs,
        intervalMs: secretIntervalMs,
      },
      { ...deps, client },
      waiting,
    );
  }
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
    writeBundle(file, bundleOf(authority), log);
    const value = istio.mesh.v1alpha1.ProxyConfig.encode({
      caCertificatesPem: [...authority.roots],
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
