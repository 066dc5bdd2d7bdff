import { type ErrorCode, QueryError, ResultTooLargeError, RetryableError, TenantryError } from '../errors.ts';
import { tenantRefusals } from './refusal.ts';
import { ToolError } from './tool.ts';

/** What a failed call tells the model, and what the log calls it. */
export interface Failure {
  readonly outcome: string;
  readonly text: string;
  /** The product or the tool is at fault, not the caller: an operator has to look. */
  readonly fault: boolean;
  readonly retryAfterSeconds?: number;
}

const internal: Failure = {
  outcome: 'internal',
  text: 'The tool failed through no fault of yours. The failure was recorded; the same call may fail again.',
  fault: true,
};

/**
 * The model reads only these sentences (and a tool's own ToolError): never what PostgreSQL or a library said, which
 * quotes stored values, names and statements.
 */
const texts: Partial<Record<ErrorCode, string>> = {
  tenant_not_served: tenantRefusals.tenant_not_served!.message,
  tenant_suspended: tenantRefusals.tenant_suspended!.message,
  key_revoked: tenantRefusals.key_revoked!.message,
  outcome_unknown:
    'The connection was lost while the change was being saved: it may or may not have been made. Look before you try again.',
  result_too_large: 'The answer would be too large. Ask for less: a narrower filter or a smaller limit.',
  deadline_exceeded:
    'The call took too long and was stopped. Ask for less: a narrower filter or a smaller limit.',
  aborted: 'The call was cancelled.',
  invalid_cursor: 'The cursor is not valid here. Start again without a cursor.',
};

const tooLargeButDone = 'The change was made, but its answer was too large to send. Do not repeat the call.';

/** SQLSTATEs that a caller's values can cause, longest match first. 42501 is row security or a grant: as if not there. */
const sqlstates: readonly (readonly [prefix: string, text: string])[] = [
  ['23505', 'There is already an entry with these values.'],
  ['23503', 'It refers to something that does not exist, or something else still refers to it.'],
  ['23', 'The values break a rule of the stored data.'],
  ['22', 'A value is out of range or has the wrong form.'],
  ['42501', 'There is no such entry.'],
];

/** Nothing was kept: the same call may simply be sent again. */
const retryableSqlstates = ['40001', '40P01', '55P03', '53'];

/** How deep a query builder or a tool may have wrapped what it was told. */
const layers = 5;

/** What the tool or the database said, under what has been wrapped around it: Drizzle's own error quotes the statement and its values. */
export function unwrapped(error: unknown): unknown {
  let inner = error;
  for (let layer = 0; layer < layers && inner instanceof Error; layer += 1) {
    if (inner instanceof ToolError || inner instanceof TenantryError) return inner;
    inner = inner.cause;
  }
  return error;
}

export function failureOf(error: unknown): Failure {
  if (error instanceof ToolError) return { outcome: 'tool_error', text: error.message, fault: false };
  if (error instanceof QueryError) return queryFailure(error.sqlstate);
  if (error instanceof RetryableError) return retryable(error.code, error.retryAfterSeconds);
  if (error instanceof ResultTooLargeError && error.committed) {
    return { outcome: error.code, text: tooLargeButDone, fault: false };
  }
  if (error instanceof TenantryError) {
    const text = texts[error.code];
    if (text) return { outcome: error.code, text, fault: false };
  }
  return internal;
}

function queryFailure(sqlstate: string): Failure {
  if (retryableSqlstates.some((prefix) => sqlstate.startsWith(prefix))) return retryable('busy', 1);
  if (sqlstate === '57014') return failureOf(new TenantryError('deadline_exceeded', ''));
  const known = sqlstates.find(([prefix]) => sqlstate.startsWith(prefix));
  if (!known) return internal;
  return { outcome: 'query_failed', text: known[1], fault: false };
}

function retryable(outcome: string, seconds: number): Failure {
  const text = `The service can't answer right now. Try the same call again in ${seconds} second${seconds === 1 ? '' : 's'}.`;
  return { outcome, text, fault: false, retryAfterSeconds: seconds };
}

const writesReadOnly =
  'The tool says readOnlyHint: true and writes. Say false in its annotations, or leave the change out.';

/** For operators: where it broke. Of PostgreSQL's answer only the SQLSTATE and names, because the rest quotes values. */
export function faultFields(error: unknown): Record<string, unknown> {
  if (error instanceof QueryError) {
    return {
      error: error.name,
      sqlstate: error.sqlstate,
      constraint: error.constraint,
      column: error.column,
      ...(error.sqlstate === '25006' && { remedy: writesReadOnly }),
      stack: frames(error),
    };
  }
  if (error instanceof Error) return { error: error.name, reason: error.message, stack: frames(error) };
  return { error: typeof error };
}

/** The stack without its first lines, which repeat the message. */
const frames = (error: Error): string | undefined =>
  error.stack
    ?.match(/^\s+at .*$/gm)
    ?.slice(0, 8)
    .join('\n');
