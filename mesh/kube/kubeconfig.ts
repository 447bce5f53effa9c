import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { messageOf } from '../common/errors.js';
import { inClusterAccess, readText } from './access.js';
import { KubeError } from './errors.js';
import { recordOf, textOf } from './events.js';
import type { ClusterAccess, Credentials } from './types.js';

type Section = Readonly<Record<string, unknown>>;

/** Fields that would change who we are or whom we trust, and are not understood here: refused rather than left out. */
const REFUSED_OF_USERS = ['exec', 'auth-provider', 'username', 'password', 'as', 'as-groups', 'as-uid'];
const REFUSED_OF_CLUSTERS = ['insecure-skip-tls-verify', 'proxy-url'];

/** Access by a kubeconfig file; empty: as the pod that we are in. @throws KubeError KUBE_ACCESS */
export function openAccess(options: { readonly kubeconfig: string }): ClusterAccess {
  return options.kubeconfig === ''
    ? inClusterAccess({ env: process.env })
    : kubeconfigAccess(options.kubeconfig);
}

/** The current context of a kubeconfig: client certificates and tokens, inline or in files. @throws KubeError KUBE_ACCESS */
export function kubeconfigAccess(file: string): ClusterAccess {
  // Read for every request, and nearly always what it was.
  let text = readText(file);
  let config = parseConfig(file, text);
  const read = (): Credentials => {
    const now = readText(file);
    if (now !== text) [config, text] = [parseConfig(file, now), now];
    return credentialsOf(config, file);
  };
  const { server } = read(); // what is wrong is said at once
  return { origin: `${file} at ${server}`, read };
}

/** Files that it names are read anew. */
function credentialsOf(config: Section, file: string): Credentials {
  const context = named(config, 'contexts', 'context', textOf(config['current-context']), file);
  const cluster = named(config, 'clusters', 'cluster', textOf(context['cluster']), file);
  const user = named(config, 'users', 'user', textOf(context['user']), file);
  refuse(cluster, REFUSED_OF_CLUSTERS, file);
  refuse(user, REFUSED_OF_USERS, file);
  const content = (section: Section, field: string) => contentOf(section, field, file);
  const token = textOf(user['token']) || readOther(user, 'tokenFile', file)?.trim() || null;
  return {
    server: serverOf(cluster, file),
    ca: content(cluster, 'certificate-authority'),
    certificate: content(user, 'client-certificate'),
    key: content(user, 'client-key'),
    token,
    serverName: textOf(cluster['tls-server-name']) || null,
  };
}

function parseConfig(file: string, text: string): Section {
  let config: Section | undefined;
  try {
    config = recordOf(parse(text));
  } catch (error) {
    throw wrong(file, messageOf(error));
  }
  if (config === undefined) throw wrong(file, 'is not a kubeconfig');
  return config;
}

function named(config: Section, list: string, field: string, name: string, file: string): Section {
  if (name === '') throw wrong(file, `names no ${field} (current-context, or a field of its context)`);
  const entries = Array.isArray(config[list]) ? (config[list] as unknown[]) : [];
  const entry = entries.map(recordOf).find((candidate) => candidate?.['name'] === name);
  const section = recordOf(entry?.[field]);
  if (section === undefined) throw wrong(file, `${list} has no "${name}"`);
  return section;
}

function refuse(section: Section, fields: readonly string[], file: string): void {
  const found = fields.find((field) => section[field] !== undefined && section[field] !== false);
  if (found !== undefined) throw wrong(file, `"${found}" is not supported`);
}

/** A token must not travel in clear text, except to a proxy on this very machine. */
function serverOf(cluster: Section, file: string): string {
  const text = textOf(cluster['server']);
  const url = URL.canParse(text) ? new URL(text) : null;
  const isLocal = ['127.0.0.1', '[::1]', 'localhost'].includes(url?.hostname ?? '');
  if (url === null || !(url.protocol === 'https:' || (url.protocol === 'http:' && isLocal)))
    throw wrong(file, `server must be an https URL (http on this machine only), not "${text}"`);
  return text.replace(/\/+$/, '');
}

/** `field` names a file, `field`-data has it in base64. */
function contentOf(section: Section, field: string, file: string): string | null {
  const data = textOf(section[`${field}-data`]);
  return data === '' ? readOther(section, field, file) : Buffer.from(data, 'base64').toString('utf8');
}

function readOther(section: Section, field: string, file: string): string | null {
  const path = textOf(section[field]);
  return path === '' ? null : readText(resolve(dirname(file), path));
}

function wrong(file: string, reason: string): KubeError {
  return new KubeError('KUBE_ACCESS', `kubeconfig ${file}: ${reason}`, { file });
}
