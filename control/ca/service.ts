import { type ServerUnaryCall, type sendUnaryData, status } from '@grpc/grpc-js';
import type { Log } from '../../mesh/log/index.js';
import type { istio } from '../../mesh/proto/index.js';
import type { IssueOutcome, IssueRequest, Issuer } from './issuer.js';
import type { Authenticator, CaEvents } from './types.js';

type Request = istio.v1.auth.IstioCertificateRequest.$Properties;
type Response = istio.v1.auth.IstioCertificateResponse.$Properties;
type Call = ServerUnaryCall<Request, Response>;

export interface CertificateServiceDeps {
  readonly authenticator: Authenticator;
  readonly issuer: Issuer;
  readonly events: CaEvents;
  readonly log: Log;
}

/** `IstioCertificateService` on gRPC: reads the request, lets the issuer decide, tells the log and the metrics. */
export class CertificateService {
  readonly #deps: CertificateServiceDeps;

  constructor(deps: CertificateServiceDeps) {
    this.#deps = deps;
  }

  /** gRPC handler of `CreateCertificate`. */
  readonly handle = (call: Call, callback: sendUnaryData<Response>): void => {
    this.#answer(call, callback).catch((error) => {
      this.#deps.events.failed();
      this.#deps.log.error({ err: error }, 'signing failed');
      callback({ code: status.INTERNAL, details: 'signing failed' });
    });
  };

  async #answer(call: Call, callback: sendUnaryData<Response>): Promise<void> {
    const { authenticator, issuer, events, log } = this.#deps;
    const authentication = await authenticator.authenticate(call.metadata);
    const caller = 'caller' in authentication ? authentication.caller : null;
    const request = readRequest(call.request);
    const outcome: IssueOutcome =
      'caller' in authentication ? issuer.issue(authentication.caller, request) : authentication;
    const who = {
      peer: call.getPeer(),
      node: caller?.nodeName ?? null,
      identity: request.identity.slice(0, 300),
    };
    if ('refusal' in outcome) {
      events.refused(outcome.refusal);
      log.warn({ ...who, reason: outcome.refusal, details: outcome.message }, 'certificate refused');
      const code = outcome.refusal === 'csr-invalid' ? status.INVALID_ARGUMENT : status.UNAUTHENTICATED;
      callback({ code, details: `${outcome.refusal}: ${outcome.message}` });
      return;
    }
    events.issued();
    log.info({ ...who, notAfter: new Date(outcome.notAfterMs).toISOString() }, 'certificate issued');
    callback(null, { certChain: [...outcome.chain] });
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
