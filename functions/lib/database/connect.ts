import type { Readable } from 'node:stream';
import type pg from 'pg';
import { connectClient } from './connection.ts';
import { copyFrom, copyTo } from './copy.ts';
import { ConnectFailure } from './failure.ts';
import type { Endpoint, QueryResult, Row } from './types.ts';

/** A control-plane connection: no tenant, no context; its errors are PostgreSQL's own (`error.code`). */
export interface ControlConnection {
  /** With values: one statement, in the extended protocol. Without: a script of any number; the last result is returned. */
  query<R = Row>(text: string, values?: readonly unknown[]): Promise<QueryResult<R>>;
  /** `copy … to stdout`, in pieces. @returns how many rows it were */
  copyTo(text: string, into: (bytes: Readable) => Promise<void>): Promise<number>;
  /** `copy … from stdin`. @returns how many rows it were */
  copyFrom(text: string, from: Readable): Promise<number>;
}

export interface OpenConnection {
  readonly connection: ControlConnection;
  close(): Promise<void>;
}

/** For whoever works on one database for longer than one call. @throws ConnectFailure; its `cause` says why */
export async function openConnection(endpoint: Endpoint): Promise<OpenConnection> {
  const client = await openClient(endpoint);
  return { connection: controlConnection(client), close: () => client.end().catch(() => {}) };
}

export const controlConnection = (client: pg.Client): ControlConnection => ({
  query: (text, values) => query(client, text, values),
  copyTo: (text, into) => copyTo(client, text, into),
  copyFrom: (text, from) => copyFrom(client, text, from),
});

/** @throws ConnectFailure */
export const openClient = (endpoint: Endpoint): Promise<pg.Client> =>
  connectClient(endpoint, false).catch((error) => {
    if (error instanceof ConnectFailure && error.meaning === 'credential')
      return connectClient(endpoint, true);
    throw error;
  });

/**
 * Opens a connection for `work` and closes it afterwards, whatever became of it.
 * @throws ConnectFailure when there is none to be had; its `cause` says why
 */
export async function withConnection<T>(
  endpoint: Endpoint,
  work: (connection: ControlConnection) => Promise<T>,
): Promise<T> {
  const { connection, close } = await openConnection(endpoint);
  try {
    return await work(connection);
  } finally {
    await close();
  }
}

async function query<R>(
  client: pg.Client,
  text: string,
  values?: readonly unknown[],
): Promise<QueryResult<R>> {
  if (!values) {
    const results: unknown = await client.query(text);
    return (Array.isArray(results) ? results.at(-1) : results) as QueryResult<R>;
  }
  // Even an empty list of values means one statement: node-postgres would take the simple protocol.
  const extended = { text, values: [...values], queryMode: 'extended' };
  return (await client.query(extended)) as unknown as QueryResult<R>;
}
