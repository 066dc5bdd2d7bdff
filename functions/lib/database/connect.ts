import type { Readable } from 'node:stream';
import pg from 'pg';
import { connectClient } from './connection.ts';
import { copyFrom, copyTo } from './copy.ts';
import { ConnectFailure } from './failure.ts';
import type { Endpoint, QueryResult, Row } from './types.ts';

/** A control-plane connection: no tenant, no context; its errors are PostgreSQL's own (`error.code`). */
export interface ControlConnection {
  /**
   * With values: one statement, in the extended protocol. Without: a script of any number; the last result is returned, and an
   * error says how many were `completed` before it.
   */
  query<R = Row>(text: string, values?: readonly unknown[]): Promise<QueryResult<R>>;
  /** `copy … to stdout`, in pieces. @returns how many rows it were */
  copyTo(text: string, into: (bytes: Readable) => Promise<void>): Promise<number>;
  /** `copy … from stdin`. @returns how many rows it were */
  copyFrom(text: string, from: Readable): Promise<number>;
}

export interface OpenConnection {
  readonly connection: ControlConnection;
  close(): Promise<void>;
  /** Done, with nothing under way on it: it is kept for the next one where the endpoint says so, and closed elsewhere. */
  release(): Promise<void>;
}

/** For whoever works on one database for longer than one call. @throws ConnectFailure; its `cause` says why */
export async function openConnection(endpoint: Endpoint): Promise<OpenConnection> {
  const client = (await endpoint.kept?.take(endpoint)) ?? (await openClient(endpoint));
  // A step holds its lock on the catalog's for as long as it works elsewhere. Only while it is kept has it an end.
  if (endpoint.kept !== undefined) await client.query('set idle_session_timeout = 0');
  const close = () => client.end().catch(() => {});
  return {
    connection: controlConnection(client),
    close,
    async release() {
      if (endpoint.kept === undefined || client.getTransactionStatus() !== 'I') return close();
      endpoint.kept.keep(endpoint, client);
    },
  };
}

export const controlConnection = (client: pg.Client): ControlConnection => ({
  query: (text, values) => query(client, text, values),
  copyTo: (text, into) => copyTo(client, text, into),
  copyFrom: (text, from) => copyFrom(client, text, from),
});

/** Text as a script's constant, for what takes no parameters. */
export const literal = (text: string): string => pg.escapeLiteral(text);

/** A name as SQL reads it, whatever is in it: names of tables and columns are the adopting team's. */
export const identifier = (name: string): string => pg.escapeIdentifier(name);

/** @throws ConnectFailure */
export const openClient = (endpoint: Endpoint): Promise<pg.Client> =>
  connectClient(endpoint, false).catch((error) => {
    if (error instanceof ConnectFailure && error.meaning === 'credential')
      return connectClient(endpoint, true);
    throw error;
  });

/**
 * Opens a connection for `work`, or takes one that is kept. Afterwards it is kept or closed; closed when `work` throws.
 * @throws ConnectFailure when there is none to be had; its `cause` says why
 */
export async function withConnection<T>(
  endpoint: Endpoint,
  work: (connection: ControlConnection) => Promise<T>,
): Promise<T> {
  const { connection, close, release } = await openConnection(endpoint);
  try {
    const result = await work(connection);
    await release();
    return result;
  } catch (error) {
    await close();
    throw error;
  }
}

/** Does `work` in one transaction: all of it, or nothing. @param begin the statement that begins it, and what goes with it */
export async function inTransaction<T>(
  connection: Pick<ControlConnection, 'query'>,
  work: () => Promise<T>,
  begin = 'begin',
): Promise<T> {
  await connection.query(begin);
  try {
    const result = await work();
    await connection.query('commit');
    return result;
  } catch (error) {
    // A lost connection has rolled back by itself; its first error is the one to tell.
    await connection.query('rollback').catch(() => {});
    throw error;
  }
}

async function query<R>(
  client: pg.Client,
  text: string,
  values?: readonly unknown[],
): Promise<QueryResult<R>> {
  if (!values) {
    const results: unknown = await countingCompleted(client, () => client.query(text));
    return (Array.isArray(results) ? results.at(-1) : results) as QueryResult<R>;
  }
  // Even an empty list of values means one statement: node-postgres would take the simple protocol.
  const extended = { text, values: [...values], queryMode: 'extended' };
  return (await client.query(extended)) as unknown as QueryResult<R>;
}

async function countingCompleted<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  let completed = 0;
  const count = () => {
    completed += 1;
  };
  client.connection.on('commandComplete', count);
  try {
    return await work();
  } catch (error) {
    throw Object.assign(error as Error, { completed });
  } finally {
    client.connection.off('commandComplete', count);
  }
}
