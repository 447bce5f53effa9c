import { MeshError } from '../mesh/common/errors.js';

export type CliErrorCode =
  | 'UNREACHABLE' // an agent's or controller's admin port did not answer
  | 'REFUSED' // it answered, but not with what was asked for
  | 'CLUSTER' // kubectl is missing, or the cluster does not answer it or refuses
  | 'NOT_FOUND'; // what the command line names is not in the configuration

/** What a person at a terminal reads; `data` names the address or the object. */
export class CliError extends MeshError<CliErrorCode> {}

/** A CliError as a value: one of many that are asked may be away. */
export async function orError<Value>(promise: Promise<Value>): Promise<Value | CliError> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof CliError) return error;
    throw error;
  }
}
