import { type Client, type ServiceError, status } from '@grpc/grpc-js';
import type { FetchedCertificate } from '../identity/types.js';
import { IstioCertificateService } from '../proto/index.js';
import { callMetadata, connectController } from './channel.js';
import { XdsError } from './errors.js';
import { structOf } from './node.js';
import type { ControllerOptions } from './types.js';

export interface CertificateClientOptions {
  readonly controller: ControllerOptions;
  /** Lifetime asked for. @default 86400 */
  readonly validitySeconds?: number;
  /** From the call to the answer, connecting included. @default 10000 */
  readonly timeoutMs?: number;
}

/** Client of `istio.v1.auth.IstioCertificateService` (sheet 4). Does not look into the certificates: the caller compares the leaf with what it wanted. */
export class CertificateClient {
  readonly #options: CertificateClientOptions;

  constructor(options: CertificateClientOptions) {
    this.#options = options;
  }

  /** A certificate for `identity` (`spiffe://...`) over the key of the CSR. Rejects with `XdsError` (`CA_...`, `CONTROLLER_CREDENTIALS`). */
  async fetchCertificate(identity: string, csrPem: string): Promise<FetchedCertificate> {
    const { controller, validitySeconds = 86_400, timeoutMs = 10_000 } = this.#options;
    const metadata = callMetadata(controller);
    const client = connectController(controller);
    try {
      const request = {
        csr: csrPem,
        validityDuration: validitySeconds,
        metadata: structOf({ ImpersonatedIdentity: identity }),
      };
      const response = await call(client, request, metadata, timeoutMs);
      return readChain(response.certChain ?? [], identity);
    } catch (error) {
      throw error instanceof XdsError ? error : refusalOf(error, identity);
    } finally {
      client.close();
    }
  }
}

const { path, requestSerialize, responseDeserialize } = IstioCertificateService.createCertificate;
type Request = Parameters<typeof requestSerialize>[0];
type Response = ReturnType<typeof responseDeserialize>;

function call(
  client: Client,
  request: Request,
  metadata: ReturnType<typeof callMetadata>,
  timeoutMs: number,
): Promise<Response> {
  const options = { deadline: Date.now() + timeoutMs };
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      options,
      (error, response) => {
        if (error !== null) reject(error);
        else resolve(response ?? {});
      },
    );
  });
}

/** Leaf, intermediates one each, then the roots, all in the last element (sheet 4). */
function readChain(elements: readonly string[], identity: string): FetchedCertificate {
  if (elements.length < 2)
    throw badResponse(identity, `${elements.length} elements: leaf and roots are missing`);
  if (!elements.every((element) => element.includes('-----BEGIN CERTIFICATE-----'))) {
    throw badResponse(identity, 'an element holds no PEM certificate');
  }
  return { chain: elements.slice(0, -1), roots: elements.at(-1)! };
}

function badResponse(identity: string, reason: string): XdsError {
  return new XdsError('CA_BAD_RESPONSE', `certificate for ${identity}: ${reason}`, { identity });
}

function refusalOf(error: unknown, identity: string): XdsError {
  const { code, details } = error as ServiceError;
  const isUnreachable = code === status.UNAVAILABLE || code === status.DEADLINE_EXCEEDED;
  const reason = `${status[code] ?? 'error'}: ${details ?? String(error)}`;
  const message = `no certificate for ${identity}: ${reason}`;
  return new XdsError(isUnreachable ? 'CA_UNREACHABLE' : 'CA_REFUSED', message, { identity }, error);
}
