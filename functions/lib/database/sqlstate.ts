/**
 * What a SQLSTATE means for the call. Everything that is not listed is PostgreSQL's answer to the tool's
 * own statement (`query`).
 */
export type Meaning =
  | 'stale' // the home has moved on: refresh the route, try once more
  | 'unverified' // the context was refused; a rotated key or a long wait can be the reason: as stale
  | 'fenced' // the home is closed to writing for a moment: wait
  | 'busy' // a lock of the fence, or a connection, was not to be had in time: wait
  | 'read_only'
  | 'suspended'
  | 'timeout'
  | 'credential' // the login or its password was refused
  | 'starting' // the server is not ready to be connected to
  | 'lost' // this connection is gone
  | 'poisoned' // the session is not in the state a transaction begins in
  | 'exhausted' // the server has run out of something that is not the caller's to give
  | 'query';

const meanings: Readonly<Record<string, Meaning>> = {
  // Raised by tenancy.admit.
  TN001: 'unverified', // no context
  TN002: 'unverified', // bad signature
  TN003: 'unverified', // expired
  TN004: 'stale', // stale epoch
  TN005: 'fenced',
  TN006: 'read_only',
  TN007: 'suspended',
  TN008: 'busy',
  TN009: 'poisoned', // not READ COMMITTED: the fence would not fence

  '25P02': 'poisoned', // in_failed_sql_transaction
  '26000': 'poisoned', // invalid_sql_statement_name: a proxy has split what belongs together
  '34000': 'poisoned', // invalid_cursor_name: the same, of a portal
  '25P01': 'poisoned', // no_active_sql_transaction
  '25001': 'poisoned', // active_sql_transaction

  '28P01': 'credential', // invalid_password
  '28000': 'credential', // invalid_authorization_specification
  '3D000': 'starting', // invalid_catalog_name: the database of a route that has moved
  '53300': 'busy', // too_many_connections
  '53400': 'exhausted', // configuration_limit_exceeded
  '53000': 'exhausted',
  '53100': 'exhausted', // disk_full
  '53200': 'exhausted', // out_of_memory
  '57014': 'timeout', // query_canceled, by the statement_timeout that enter has set
  '57P01': 'lost', // admin_shutdown
  '57P02': 'lost', // crash_shutdown
  '57P03': 'starting', // cannot_connect_now
  '57P05': 'lost', // idle_session_timeout
  '25P03': 'lost', // idle_in_transaction_session_timeout
  '25P04': 'lost', // transaction_timeout
};

export function meaningOf(sqlstate: string | undefined): Meaning {
  // No SQLSTATE: it was not PostgreSQL that spoke, but the socket. Class 08 is what poolers say of theirs.
  if (sqlstate === undefined || sqlstate.startsWith('08')) return 'lost';
  return meanings[sqlstate] ?? 'query';
}
