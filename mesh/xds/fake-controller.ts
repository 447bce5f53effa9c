import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type handleUnaryCall,
  type Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  status,
} from '@grpc/grpc-js';
import {
  AggregatedDiscoveryService,
  type envoy,
  IstioCertificateService,
  type istio,
} from '../proto/index.js';
import type { ControllerOptions } from './types.js';

type Request = envoy.service.discovery.v3.DeltaDiscoveryRequest.$Properties;
type Stream = ServerDuplexStream<Request, Buffer>;
type CertificateRequest = istio.v1.auth.IstioCertificateRequest.$Properties;
type CertificateResponse = istio.v1.auth.IstioCertificateResponse.$Properties;

interface Refusal {
  readonly code: status;
  readonly details: string;
}

/** One stream of a client, as the test drives it. */
export interface FakeStream {
  readonly metadata: Metadata;
  send(response: Buffer): void;
  /** The next request not yet taken; waits for it. */
  nextRequest(): Promise<Request>;
  end(): void;
  fail(code: status, details: string): void;
}

/** The server's side of the protocols for tests, written from the sheet and nothing else: a real gRPC server over TLS whose every word the test says itself. */
export class FakeController {
  readonly directory = mkdtempSync(join(tmpdir(), 'culvert-xds-'));
  readonly certificateFile = join(this.directory, 'cert.pem');
  readonly tokenFile = join(this.directory, 'token');
  onCertificate: (request: CertificateRequest, metadata: Metadata) => CertificateResponse | Refusal = () => ({
    code: status.UNIMPLEMENTED,
    details: 'the test expects no certificate request',
  });
  #server: Server | null = null;
  #port = 0;
  readonly #streams = new Queue<FakeStream>();

  constructor() {
    const subject = ['-subj', '/CN=fake', '-addext', 'subjectAltName=DNS:controller.test,IP:127.0.0.1'];
    const key = [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      join(this.directory, 'key.pem'),
    ];
    execFileSync(
      'openssl',
      ['req', '-x509', ...key, ...subject, '-days', '2', '-out', this.certificateFile],
      {
        stdio: 'pipe',
      },
    );
    writeFileSync(this.tokenFile, 'token-1\n', { mode: 0o600 });
  }

  get controllerOptions(): ControllerOptions {
    return {
      address: `127.0.0.1:${this.#port}`,
      rootCertificateFile: this.certificateFile,
      tokenFile: this.tokenFile,
      clusterId: 'cluster-1',
      headers: { 'x-extra': 'yes' },
    };
  }

  /** Listens; on the port of last time, if there was one. */
  async start(): Promise<void> {
    const server = new Server();
    server.addService(AggregatedDiscoveryService, {
      deltaAggregatedResources: (stream: Stream) => this.#streams.push(fakeStream(stream)),
    });
    const createCertificate: handleUnaryCall<CertificateRequest, CertificateResponse> = (call, answer) => {
      const outcome = this.onCertificate(call.request, call.metadata);
      if ('code' in outcome) answer(outcome);
      else answer(null, outcome);
    };
    server.addService(IstioCertificateService, { createCertificate });
    const certificate = readFileSync(this.certificateFile);
    const keyPair = { private_key: readFileSync(join(this.directory, 'key.pem')), cert_chain: certificate };
    const credentials = ServerCredentials.createSsl(null, [keyPair]);
    this.#port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`127.0.0.1:${this.#port}`, credentials, (error, port) =>
        error ? reject(error) : resolve(port),
      );
    });
    this.#server = server;
  }

  /** The next stream that a client opens. */
  nextStream(): Promise<FakeStream> {
    return this.#streams.next();
  }

  stop(): void {
    this.#server?.forceShutdown();
    this.#server = null;
  }

  dispose(): void {
    this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function fakeStream(stream: Stream): FakeStream {
  const requests = new Queue<Request>();
  stream.on('data', (request: Request) => requests.push(request));
  stream.on('error', () => {});
  stream.on('end', () => stream.end());
  return {
    metadata: stream.metadata,
    send: (response) => stream.write(response),
    nextRequest: () => requests.next(),
    end: () => stream.end(),
    fail: (code, details) => stream.emit('error', { code, details }),
  };
}

class Queue<Item> {
  readonly #items: Item[] = [];
  readonly #waiting: ((item: Item) => void)[] = [];

  push(item: Item): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#items.push(item);
    else waiting(item);
  }

  next(): Promise<Item> {
    const item = this.#items.shift();
    return item === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(item);
  }
}
