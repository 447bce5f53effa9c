import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { type PeerCertificate, checkServerIdentity as tlsCheckServerIdentity } from 'node:tls';
import { type ChannelOptions, Client, credentials, Metadata } from '@grpc/grpc-js';
import { messageOf } from '../common/errors.js';
import { worldAccessTo } from '../common/secret-mode.js';
import { endingWithChannel } from './ending-credentials.js';
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

/** Reserved (RFC 6761 6.4): means nobody. */
const SNI_OF_ADDRESS = 'controller.invalid';

/** A client over server-authenticated TLS with the roots as the file has them now. One per stream or call: roots may have changed since. */
export function connectController(options: ControllerOptions): Client {
  const file = readCredential(options.rootCertificateFile, 'root certificate');
  const roots = Buffer.concat([file, Buffer.from(`\n${options.learntRoots?.() ?? ''}`)]);
  if (options.verifyName == null && isIP(hostOf(options.address)) !== 0)
    return connectByAddress(options, roots);
  const verified =
    options.verifyName == null
      ? {}
      : { 'grpc.ssl_target_name_override': options.verifyName, 'grpc.default_authority': options.verifyName };
  return new Client(options.address, endingWithChannel(credentials.createSsl(roots)), {
    ...CHANNEL_OPTIONS,
    ...verified,
  });
}

/** grpc-js would send the address as SNI, which RFC 6066 3 forbids and Node warns of. It sends some name only where it is told one; what is verified stays the address. */
function connectByAddress(options: ControllerOptions, roots: Buffer): Client {
  const address = hostOf(options.address);
  const checkServerIdentity = (_name: string, certificate: PeerCertificate) =>
    tlsCheckServerIdentity(address, certificate);
  const ssl = credentials.createSsl(roots, null, null, { checkServerIdentity });
  return new Client(options.address, endingWithChannel(ssl), {
    ...CHANNEL_OPTIONS,
    'grpc.ssl_target_name_override': SNI_OF_ADDRESS,
  });
}

/** `10.0.0.1:15012`, `[fd00::1]:15012` */
function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(':')).replace(/^\[(.*)\]$/, '$1');
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

/** A bearer token is whoever reads it. */
function refuseReadableByAll(file: string): void {
  const fault = worldAccessTo(file);
  if (fault !== null) throw new XdsError('CONTROLLER_CREDENTIALS', `token file ${file} ${fault}`, { file });
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
