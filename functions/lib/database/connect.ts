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
   * error says how many were `completed` before it. What is not awaited in between goes out together and is done in order; one
   * that fails stops none of the others.
   */
  query<R = Row>(text: string, values?: readonly unknown[]): Promise<QueryResult<R>>;
  /** `copy … to stdout`, in pieces. @returns how many rows there were */
  copyTo(text: string, into: (bytes: Readable) => Promise<void>): Promise<number>;
  /** `copy … from stdin`. @returns how many rows there were */
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
  pipelines(client, true);
  // A step holds its lock on the catalog's for as long as it works elsewhere. Only while it is kept has it an end. Goes out
  // with the first statement, which says it too when the server is gone.
  const begun = endpoint.kept === undefined ? undefined : client.query('set idle_session_timeout = 0');
  /** Settles when all is answered that was sent. */
  let sent: Promise<unknown> | undefined = begun?.catch(() => {});
  const close = () => {
    // What is still under way would be waited for.
    pipelines(client, false);
    return client.end().catch(() => {});
  };
  const alone = async <T>(copying: () => Promise<T>): Promise<T> => {
    await sent;
    pipelines(client, false);
    try {
      return await copying();
    } finally {
      pipelines(client, true);
    }
  };
  const { query, copyTo, copyFrom } = controlConnection(client);
  return {
    connection: {
      query: (text, values) => {
        // What is sent in one turn of the loop is one write.
        client.connection.stream.cork();
        process.nextTick(() => client.connection.stream.uncork());
        const answer = query(text, values);
        sent = answer.catch(() => {});
        return answer as never;
      },
      copyTo: (text, into) => alone(() => copyTo(text, into)),
      copyFrom: (text, from) => alone(() => copyFrom(text, from)),
    },
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

/** The answers to what was sent together. @throws the first failure, as the server did it */
export async function answersOf<T extends readonly unknown[]>(
  sent: readonly [...T],
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(sent);
  const answers: unknown[] = [];
  for (const each of sent) answers.push(await each);
  return answers as never;
}

/** Whether statements that nobody waits for in between go out together. Rows by COPY must have the connection for themselves. */
function pipelines(client: pg.Client, does: boolean): void {
  (client as { pipeline: boolean }).pipeline = does;
}

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

/**
 * Does `work` in one transaction: all of it, or nothing. @param begin the statement that begins it, and what goes with it; sent
 * with the first one of `work`, which does not take effect when something of this fails
 */
export async function inTransaction<T>(
  connection: Pick<ControlConnection, 'query'>,
  work: () => Promise<T>,
  begin = 'begin',
): Promise<T> {
  const begun = connection.query(begin);
  begun.catch(() => {});
  try {
    const result = await work();
    await begun;
    await connection.query('commit');
    return result;
  } catch (error) {
    // A lost connection has rolled back by itself; its first error is the one to tell.
    await connection.query('rollback').catch(() => {});
    await begun;
    throw error;
  }
}

async function query<R>(
  client: pg.Client,
  text: string,
  values?: readonly unknown[],
): Promise<QueryResult<R>> {
  if (!values) {
    const results: unknown = await runScript(client, text);
    return (Array.isArray(results) ? results.at(-1) : results) as QueryResult<R>;
  }
  // Even an empty list of values means one statement: node-postgres would take the simple protocol.
  const extended = { text, values: [...values], queryMode: 'extended' };
  return (await client.query(extended)) as unknown as QueryResult<R>;
}

/** As node-postgres has it: its types don't tell. */
interface Script extends pg.Query {
  callback: (error: Error | null, results: unknown) => void;
  handleCommandComplete: (...told: unknown[]) => void;
}

/** What is completed is counted by the script's own answers: others may be under way on the connection. */
function runScript(client: pg.Client, text: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const script = new pg.Query(text) as Script;
    const complete = script.handleCommandComplete;
    let completed = 0;
    script.handleCommandComplete = (...told) => {
      completed += 1;
      complete.apply(script, told);
    };
    script.callback = (error, results) =>
      error ? reject(Object.assign(error, { completed })) : resolve(results);
    client.query(script);
  });
}
