import { QueryError, RetryableError, TenantryError } from '../errors.ts';
import { ConnectFailure, StepFailure, Stopped } from './failure.ts';
import type { CallLimits } from './types.ts';

/** What the caller is told. The server's own words stay in `cause`: they quote stored values. */
export function callerError(error: unknown, limits: CallLimits): unknown {
  if (error instanceof Stopped) return stopped(error, limits);
  if (error instanceof ConnectFailure) {
    return error.meaning === 'busy' ? busy(error) : unreachable(error);
  }
  if (error instanceof StepFailure) return failed(error, limits);
  return error;
}

function failed(failure: StepFailure, { mode }: CallLimits): TenantryError {
  if (failure.outcomeUnknown && mode === 'w')
    return unknownOutcome('The connection to the database was lost', failure);
  if (failure.atDoor) return refusedAtDoor(failure);
  switch (failure.meaning) {
    case 'lost':
    case 'starting':
      return unreachable(failure);
    case 'exhausted':
    case 'busy':
      return busy(failure);
    case 'timeout':
      return tooSlow(failure);
    default:
      return new QueryError(failure.sqlstate!, failure.constraint, failure.cause);
  }
}

/** BEGIN and enter are ours: whatever they answer, the tool's statement is not to blame. */
function refusedAtDoor(failure: StepFailure): TenantryError {
  const options = { cause: failure };
  switch (failure.meaning) {
    case 'suspended':
      return new TenantryError('tenant_suspended', 'This tenant is suspended.', options);
    case 'read_only':
      return new RetryableError(
        'unavailable',
        'This tenant can be read but not changed for now; try again later.',
        60,
        options,
      );
    case 'fenced':
    case 'busy':
    case 'timeout':
    case 'exhausted':
      return busy(failure);
    case 'stale':
      return new RetryableError(
        'unavailable',
        "This tenant's data is being moved; try again in a moment.",
        2,
        options,
      );
    case 'lost':
    case 'starting':
    case 'poisoned':
      return unreachable(failure);
    default:
      // With a new context as with the first.
      return new TenantryError(
        'internal',
        failure.sqlstate === 'TN003'
          ? "To the tenant's database the call has expired: its clock is more than a minute ahead of the function's."
          : `The tenant's database did not admit the call (SQLSTATE ${failure.sqlstate}).`,
        options,
      );
  }
}

function stopped({ outcomeUnknown }: Stopped, { signal, mode }: CallLimits): TenantryError {
  // Not asked of the clock: a timer fires up to a millisecond before the clock is there.
  const late = !signal.aborted || signal.reason?.code === 'deadline_exceeded';
  if (outcomeUnknown && mode === 'w') {
    return unknownOutcome(late ? 'The time allowed for this call ran out' : 'The call was aborted');
  }
  return late ? tooSlow() : new TenantryError('aborted', 'The call was aborted.');
}

function tooSlow(cause?: unknown): TenantryError {
  return new TenantryError(
    'deadline_exceeded',
    'The time allowed for this call ran out and nothing was changed; ask for less.',
    { cause },
  );
}

function unknownOutcome(what: string, cause?: unknown): TenantryError {
  return new TenantryError(
    'outcome_unknown',
    `${what} while a change was being committed: it may have been made or not. Look before you repeat it.`,
    { cause },
  );
}

const busy = (cause: unknown) =>
  new RetryableError('busy', 'The database is busy and nothing was changed; try again in a moment.', 1, {
    cause,
  });

const unreachable = (cause: unknown) =>
  new RetryableError(
    'unavailable',
    "The tenant's database can't be reached now; nothing was changed. Try again.",
    2,
    { cause },
  );
