import { RetryableError, TenantryError } from '../errors.ts';

/** Faults in the caller's name that pass by themselves. */
const passing =
  /Throttl|TooManyRequests|RequestLimitExceeded|SlowDown|RequestTimeout|PriorRequestNotComplete/;

/** What an AWS client threw, as a step knows it: what may pass by itself is `unavailable`, and tried again. */
export function awsFailure(service: string, cause: unknown): TenantryError {
  const { $fault, $retryable, name, message } = cause as {
    $fault?: string;
    $retryable?: object;
    name?: string;
    message?: string;
  };
  if ($fault === 'client' && !$retryable && !passing.test(name ?? ''))
    return new TenantryError('internal', `${service} refused the call (${name}: ${message}).`, { cause });
  return new RetryableError('unavailable', `${service} could not be reached. Try again.`, 2, { cause });
}

/** For a promise's `catch`. */
export const failsAs = (service: string) => (cause: unknown) => {
  throw awsFailure(service, cause);
};
