import { MeshError } from '../../mesh/common/errors.js';

/** WEBHOOK_CA: the Secret of the webhook's authority cannot be used. */
export class AdmissionError extends MeshError<'WEBHOOK_CA'> {}
