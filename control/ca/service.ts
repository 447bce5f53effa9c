import {
  Metadata,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  type ServerUnaryCall,
  type StatusObject,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import type { Log } from '../../mesh/log/index.js';
import { IstioCertificateService, type istio } from '../../mesh/proto/index.js';
import type { IssueRequest, Issuer } from './issuer.js';
import { codeOfRefusal } from './refusals.js';
import type { Authenticator, CaEvents, Caller, Refusal } from './types.js';

type Request = istio.v1.auth.IstioCertificateRequest.$Properties;
type Response = istio.v1.auth.IstioCertificateResponse.$Properties;
type Call = ServerUnaryCall<Request, Response>;

const CREATE_CERTIFICATE = IstioCertificateService.createCertificate.path;
const INTERNAL: StatusObject = {
  code: status.INTERNAL,
  details: 'signing failed',
  metadata: new Metadata(),
};

export interface CertificateServiceDeps {
  readonly authenticator: Authenticator;
  readonly issuer: Issuer;
  readonly events: CaEvents;
  readonly log: Log;
}

/** `IstioCertificateService` on gRPC: reads the request, lets the issuer decide, tells the log and the metrics. */
export class CertificateService {
  readonly #deps: CertificateServiceDeps;
  /** Of calls that were let in. */
  readonly #callers = new WeakMap<Metadata, Caller>();

  constructor(deps: CertificateServiceDeps) {
    this.#deps = deps;
  }

  /** For the gRPC server: asks who calls before a byte of the request is read. gRPC reads unary requests whole, and a stranger's may be as large as any. */
  readonly interceptor: ServerInterceptor = (method, call) => {
    if (method.path !== CREATE_CERTIFICATE) return new ServerInterceptingCall(call);
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({ onReceiveMetadata: (metadata, admit) => void this.#admit(call, metadata, admit) }),
    });
  };

  /** gRPC handler of `CreateCertificate`; only for calls that came through `interceptor`. */
  readonly handle = (call: Call, callback: sendUnaryData<Response>): void => {
    this.#answer(call).then(
      (answer) => callback(...answer),
      (error) => {
        this.#failed(error);
        callback(INTERNAL);
      },
    );
  };

  async #admit(
    call: ServerInterceptingCallInterface,
    metadata: Metadata,
    admit: (metadata: Metadata) => void,
  ): Promise<void> {
    try {
      const outcome = await this.#deps.authenticator.authenticate(metadata);
      if ('refusal' in outcome) {
        call.sendStatus(this.#refuse({ peer: call.getPeer() }, outcome));
        return;
      }
      this.#callers.set(metadata, outcome.caller);
      admit(metadata);
    } catch (error) {
      this.#failed(error);
      call.sendStatus(INTERNAL);
    }
  }

  async #answer(call: Call): Promise<[error: StatusObject | null, response?: Response]> {
    const { issuer, events, log } = this.#deps;
    const caller = this.#callers.get(call.metadata);
    if (caller === undefined) throw new Error('a call came past the interceptor');
    const request = readRequest(call.request);
    const outcome = await issuer.issue(caller, request);
    const who = { peer: call.getPeer(), node: caller.nodeName, identity: request.identity.slice(0, 300) };
    if ('refusal' in outcome) return [this.#refuse(who, outcome)];
    events.issued();
    log.info({ ...who, notAfter: new Date(outcome.notAfterMs).toISOString() }, 'certificate issued');
    return [null, { certChain: [...outcome.chain] }];
  }

  #refuse(who: Readonly<Record<string, unknown>>, { refusal, message }: Refusal): StatusObject {
    this.#deps.events.refused(refusal);
    this.#deps.log.warn({ ...who, reason: refusal, details: message }, 'certificate refused');
    return { code: codeOfRefusal(refusal), details: `${refusal}: ${message}`, metadata: new Metadata() };
  }

  #failed(error: unknown): void {
    this.#deps.events.failed();
    this.#deps.log.error({ err: error }, 'signing failed');
  }
}

function readRequest(request: Request): IssueRequest {
  return {
    csr: request.csr ?? '',
    // int64, a Long.
    lifetimeMs: Number(request.validityDuration ?? 0) * 1000,
    identity: request.metadata?.fields?.['ImpersonatedIdentity']?.stringValue ?? '',
  };
}
