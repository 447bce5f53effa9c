import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type DetailedPeerCertificate } from 'node:tls';
import { experimental, Server } from '@grpc/grpc-js';
import { expect, test } from '@jest/globals';
import { createLog } from '../../mesh/log/index.js';
import { bundleOf, ServerCertificate, StateAuthority } from './index.js';

test('a server shows the certificate for its names and addresses, and the renewed one without a restart', async () => {
  const state = mkdtempSync(join(tmpdir(), 'culvert-ca-'));
  const log = createLog({ level: 'silent', component: 'test' });
  const authority = new StateAuthority(
    { stateDir: state, trustDomain: 'cluster.local', overlapMs: 60_000, intervalMs: 60_000 },
    { log, nowMs: Date.now },
  );
  const root = { pem: bundleOf(authority.current) };
  const options = {
    dnsNames: ['controller.example', 'localhost'],
    ipAddresses: ['127.0.0.1', '::1'],
    lifetimeMs: 3_600_000,
  };
  const certificate = await ServerCertificate.make(options, {
    authority,
    log,
  });
  const grpc = new Server();
  const credentials = experimental.createCertificateProviderServerCredentials(certificate, null, false);
  const port = await new Promise<number>((resolve, reject) =>
    grpc.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  try {
    const first = await peer(port, root.pem, 'controller.example');
    expect(first.subjectaltname).toBe(
      'DNS:controller.example, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1',
    );
    await certificate.renew();
    const second = await peer(port, root.pem, 'localhost');
    expect(second.serialNumber).not.toBe(first.serialNumber);
    await expect(peer(port, root.pem, 'other.example')).rejects.toThrow(/altnames/);
  } finally {
    certificate.close();
    authority.close();
    grpc.forceShutdown();
    rmSync(state, { recursive: true, force: true });
  }
});

/** The certificate shown to a client that verifies chain and name. */
function peer(port: number, ca: string, servername: string): Promise<DetailedPeerCertificate> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', ca, servername, ALPNProtocols: ['h2'] }, () => {
      resolve(socket.getPeerCertificate(true));
      socket.destroy();
    });
    socket.on('error', reject);
  });
}
