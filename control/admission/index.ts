export { AdmissionError } from './errors.js';
export { review } from './review.js';
export type { AdmissionResponse, Verdict } from './types.js';
export { Webhook, type WebhookDeps, type WebhookOptions } from './webhook.js';
