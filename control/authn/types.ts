/** What the authenticator tells of itself, for metrics. */
export interface AuthnEvents {
  /** One TokenReview; `failed`: the API server could not be asked, or did not answer in time. */
  reviewed(outcome: 'authenticated' | 'refused' | 'failed', tookMs: number): void;
}
