/** What became of a review: label of the metric. `failed`: it could not be read, or by an error of ours. */
export type Verdict = 'allowed' | 'warned' | 'denied' | 'failed';

/** admission.k8s.io/v1 AdmissionReview, as far as it is answered. */
export interface AdmissionResponse {
  readonly uid: string;
  readonly allowed: boolean;
  readonly warnings?: readonly string[];
  readonly status?: {
    readonly code: number;
    readonly reason: string;
    readonly message: string;
    readonly details?: {
      readonly causes: readonly {
        readonly reason: string;
        readonly field: string;
        readonly message: string;
      }[];
    };
  };
}
