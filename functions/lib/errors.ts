/**
 * Every refusal and failure the product itself raises. The message is safe to show to the caller: it
 * holds no SQL, no server detail, no secret and no other tenant's name, and says what to do next.
 * What only operators may see travels in `cause`.
 */
export type ErrorCode =
  | 'invalid_settings' // configuration; the process must not serve
  | 'unauthenticated' // no valid token
  | 'tenant_not_served' // unknown, deleted, failed, or not the token's: all read the same
  | 'tenant_suspended'
  | 'key_revoked'
  | 'busy' // retryable: pool, budget or fence exhausted after a bounded wait
  | 'unavailable' // retryable: catalog or database can't be reached
  | 'outcome_unknown' // the connection was lost while a write was being committed
  | 'stale_route' // internal to dispatch: refresh the route and retry
  | 'statement_refused' // a statement that a tool may not send
  | 'result_too_large'
  | 'deadline_exceeded'
  | 'aborted'
  | 'query_failed' // PostgreSQL refused the tool's statement
  | 'invalid_cursor'
  | 'migration_refused'
  | 'migration_halted' // a run stopped between two rings
  | 'move_refused' // what keeps a tenant from being moved
  | 'move_differs' // after copying, the two homes hold different rows
  | 'move_cancelled'
  | 'move_paused'
  | 'slug_invalid'
  | 'slug_taken'
  | 'idempotency_conflict' // the key was used for another request
  | 'operation_running' // another one is changing this tenant
  | 'unknown_operation'
  | 'unknown_tenant' // to operators only: agents read `tenant_not_served`
  | 'unknown_key'
  | 'invalid_request' // what an operator sent is not in the form that is asked for
  | 'instance_failed' // a dedicated instance will not come up
  | 'instance_pending' // it is on its way: ask again
  | 'instance_left' // one of an earlier move has to go first
  | 'instance_quota' // the account may have no more of them
  | 'unfinished' // a step's time is up and it has more to do: ask again
  | 'operation_cancelled' // a step came after its operation was undone
  | 'export_refused' // there is something else where an export shall go
  | 'import_refused' // files that are not what they should be, or don't fit the home
  | 'not_removed' // something of an offboarded tenant is still there
  | 'operation_ended' // a step came after its operation's end
  | 'probe_failed' // a tenant's data path does not hold
  | 'name_taken' // a resource of that name is somebody else's
  | 'wrong_strategy' // what is asked for does not go with how the tenant is kept apart
  | 'wrong_status' // the lifecycle has no such step from where the tenant is
  | 'internal';

export class TenantryError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** Nothing was executed; trying again after the given time is safe. */
export class RetryableError extends TenantryError {
  readonly retryAfterSeconds: number;
  constructor(code: 'busy' | 'unavailable', message: string, retryAfterSeconds = 1, options?: ErrorOptions) {
    super(code, message, options);
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/**
 * PostgreSQL's answer to a tool's statement. `sqlstate` (and `constraint` or, where a value is missing, `column`: names
 * that the adopting team gave) are for the tool's own code; the server's message, detail and hint are in `cause` only,
 * because they quote stored values.
 */
export class QueryError extends TenantryError {
  readonly sqlstate: string;
  readonly constraint: string | undefined;
  readonly column: string | undefined;
  constructor(sqlstate: string, constraint: string | undefined, cause: unknown) {
    super('query_failed', `The database refused the statement (SQLSTATE ${sqlstate}).`, { cause });
    this.sqlstate = sqlstate;
    this.constraint = constraint;
    const { table, column } = (cause ?? {}) as { table?: string; column?: string };
    this.column = column && (table ? `${table}.${column}` : column);
  }
}

/** The statement returned more than one call may carry. Reading less is the tool's to do: LIMIT, fewer columns. */
export class ResultTooLargeError extends TenantryError {
  /** The statement's changes, if it made any, were committed all the same: it must not simply be repeated. */
  readonly committed: boolean;
  constructor(message: string, committed: boolean) {
    super('result_too_large', committed ? `${message} Its changes were committed.` : message);
    this.committed = committed;
  }
}
