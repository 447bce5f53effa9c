import { readFileSync, statSync } from 'node:fs';
import { type ChannelOptions, Client, credentials, Metadata } from '@grpc/grpc-js';
import { messageOf } from '../common/errors.js';
import { XdsError } from './errors.js';
import type { ControllerOptions } from './types.js';

/** As istiod's clients have them (sheet 3.1). */
const CHANNEL_OPTIONS: ChannelOptions = {
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.max_receive_message_length': 200 * 1024 * 1024,
  'grpc.enable_retries': 0,
  'grpc.enable_http_proxy': 0,
  // Reconnecting is our business: a shared subchannel would bring its own back-off.
  'grpc.use_local_subchannel_pool': 1,
};

/** A client over server-authenticated TLS with the roots as the file has them now. One per stream or call: roots may have changed since. */
export function connectController(options: ControllerOptions): Client {
  const roots = readCredential(options.rootCertificateFile, 'root certificate');
  const verified =
    options.verifyName == null
      ? {}
      : { 'grpc.ssl_target_name_override': options.verifyName, 'grpc.default_authority': options.verifyName };
  return new Client(options.address, credentials.createSsl(roots), { ...CHANNEL_OPTIONS, ...verified });
}

/** Metadata of one call, with the token as the file has it now. */
export function callMetadata(options: ControllerOptions): Metadata {
  const metadata = new Metadata();
  refuseReadableByAll(options.tokenFile);
  const token = readCredential(options.tokenFile, 'token').toString('utf8').trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new XdsError('CONTROLLER_CREDENTIALS', `token file ${options.tokenFile} holds no token`, {
      file: options.tokenFile,
    });
  }
  metadata.set('authorization', `Bearer ${token}`);
  metadata.set('clusterid', options.clusterId);
  for (const [name, value] of Object.entries(options.headers ?? {})) metadata.set(name, value);
  return metadata;
}

/** A bearer token is whoever reads it. Groups may: a projected token may belong to the pod's fsGroup. */
function refuseReadableByAll(file: string): void {
  const mode = statSync(file, { throwIfNoEntry: false })?.mode ?? 0;
  if ((mode & 0o006) === 0) return;
  const reason = `token file ${file} may be read or written by everybody (mode ${(mode & 0o777).toString(8)}); chmod 600 it`;
  throw new XdsError('CONTROLLER_CREDENTIALS', reason, { file });
}

function readCredential(file: string, what: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new XdsError(
      'CONTROLLER_CREDENTIALS',
      `${what} file cannot be read: ${messageOf(error)}`,
      { file },
      error,
    );
  }
}
