import type { KeptConnections } from './kept.ts';
import type { Sql } from './sql.ts';

// biome-ignore lint/suspicious/noExplicitAny: a row's shape is the tool's to state, as in node-postgres
export type Row = Record<string, any>;

/** The subset of node-postgres' result that it, Drizzle and Kysely read. */
export interface QueryResult<R = Row> {
  rows: R[];
  rowCount: number | null;
  command: string;
  fields: { name: string; dataTypeID: number }[];
  oid: number;
}

/** node-postgres' query object; ORMs pass it. `name` is ignored: statements stay unnamed, behind a pooler too. */
export interface QueryConfig {
  text: string;
  values?: readonly unknown[] | undefined;
  name?: string | undefined;
  rowMode?: 'array' | undefined;
  // biome-ignore lint/suspicious/noExplicitAny: node-postgres' own type parsers
  types?: { getTypeParser(oid: number, format?: any): any } | undefined;
}

export interface Queryable {
  /**
   * Runs one statement. Values always travel as parameters; at most `maxRows` rows and `maxBytes` bytes come back.
   * @throws QueryError when PostgreSQL refuses the statement
   * @throws TenantryError `statement_refused`, `result_too_large`, `deadline_exceeded`, `aborted`, `busy`, `unavailable`, `outcome_unknown`
   */
  query<R = Row>(statement: string | Sql | QueryConfig, values?: readonly unknown[]): Promise<QueryResult<R>>;
  /** For ORMs that ask a pool for a client: the same queryable, with a `release` that does nothing. */
  connect(): Promise<this & { release(error?: unknown): void }>;
}

/** Statements of one transaction; `savepoint`, and an ORM's `begin` as a savepoint, work here. */
export interface TenantTransaction extends Queryable {}

/** All that a tool knows of the database: bound to the caller's tenant, whatever the strategy. */
export interface TenantDatabase extends Queryable {
  /** Runs `work` in one transaction; commits when it resolves, rolls back when it throws. May run `work` again when nothing of it was committed. */
  transaction<T>(work: (tx: TenantTransaction) => Promise<T>): Promise<T>;
}

/** Where and as whom to connect. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly login: string;
  /** Asked at every new connection: an IAM token or a secret's password. `fresh`: what was cached was refused. */
  password(fresh: boolean): Promise<string>;
  /** `verify` demands a certificate of a known authority (RDS's bundle on Lambda); `off` only where the network is the machine itself. */
  readonly tls: 'verify' | 'off';
  /** Where the control plane's connections wait for its next piece of work. */
  readonly kept?: KeptConnections | undefined;
}

/** What a connection is for, and for nothing else. */
export const placeOf = ({ host, port, database, login }: Endpoint): string =>
  JSON.stringify([host, port, database, login]);

export type Mode = 'r' | 'w';

/** One way in: decided by the layers above, per attempt. */
export interface Passage {
  readonly endpoint: Endpoint;
  /** The signed context for `tenancy.admit`. */
  readonly context: string;
}

/** Finds the passage; `refresh`: the last one was refused as stale or could not be reached. */
export type FindPassage = (request: {
  mode: Mode;
  statementMs: number;
  refresh: boolean;
}) => Promise<Passage>;

/** Bounds of one call. */
export interface CallLimits {
  readonly mode: Mode;
  /** Unix time, ms: no statement may run longer than until then. */
  readonly deadline: number;
  /** Fires when nobody waits for the answer any more; with a `deadline_exceeded` as its reason when that is why. */
  readonly signal: AbortSignal;
  /** Rows one statement may return. */
  readonly maxRows: number;
  /** Bytes of row data one statement may return. */
  readonly maxBytes: number;
  /** `four`: BEGIN, enter, statement and COMMIT each in its own round trip, for a proxy that can't keep them together. */
  readonly roundTrips: 'one' | 'four';
}
