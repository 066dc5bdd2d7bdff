import { setTimeout } from 'node:timers/promises';
import { connectClient } from '../../../functions/lib/database/connection.ts';
import { createConnectionPools } from '../../../functions/lib/database/pools.ts';
import { openTenantDatabase } from '../../../functions/lib/database/tenant-database.ts';
import type { Endpoint, Mode } from '../../../functions/lib/database/types.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import type { Way } from './attack.ts';
import { contextOf, type Party } from './party.ts';

/** All that came back, and a look at the victims while the attacker still holds what it got. */
export interface Attempt {
  /** Every value, error field and notice as text, one a line. */
  readonly heard: string;
  readonly harm: string | undefined;
}

/** From the victim's side. */
interface Look {
  blocked(): Promise<string | undefined>;
  harm(): Promise<string | undefined>;
}

/** Runs the statements on the attacker's own login, as far as they get. */
export function attempt(
  keys: MasterKeys,
  attacker: Party,
  from: 'call' | 'session',
  statements: readonly string[],
  way: Way,
  look: Look,
): Promise<Attempt> {
  return way === 'product'
    ? throughProduct(keys, attacker, statements, look)
    : onLogin(keys, attacker, from, statements, way, look);
}

/** A machine that is busy takes its time for a handshake, which says nothing about walls. */
async function connect(endpoint: Endpoint) {
  for (let left = 5; ; left -= 1) {
    try {
      return await connectClient(endpoint, false);
    } catch (error) {
      if (left === 0) throw error;
      await setTimeout(500);
    }
  }
}

async function onLogin(
  keys: MasterKeys,
  attacker: Party,
  from: 'call' | 'session',
  statements: readonly string[],
  way: 'simple' | 'extended',
  look: Look,
): Promise<Attempt> {
  const heard: string[] = [];
  const client = await connect(attacker.endpoint);
  client.connection.on('copyData', ({ chunk }: { chunk: Buffer }) => heard.push(chunk.toString()));
  client.on('notice', (notice) => heard.push(say({ ...notice, message: notice.message })));
  // node-postgres refuses a COPY from the client, but in the extended protocol its Sync has then been swallowed.
  client.connection.on('copyInResponse', () => way === 'extended' && client.connection.sync());
  const send = async (text: string) => {
    try {
      const config = {
        text,
        types: asText,
        ...(way === 'extended' && { values: [], queryMode: 'extended' }),
      };
      const results: unknown = await client.query(config as { text: string });
      for (const result of Array.isArray(results) ? results : [results]) heard.push(say(result.rows));
      return true;
    } catch (error) {
      heard.push(say({ ...(error as object), message: (error as Error).message }));
      return false;
    }
  };
  const enter = async () => {
    await client.query('begin isolation level read committed read write');
    await client.query({ text: 'select tenancy.enter($1)', values: [contextOf(keys, attacker)] });
  };
  try {
    if (from === 'call') await enter();
    for (const statement of statements) {
      const within = client.getTransactionStatus() === 'T';
      if (within) await client.query('savepoint here');
      if (await send(statement)) continue;
      // Whatever state it is in now, the next statement shall have its chance.
      const undo = within ? 'rollback to here' : 'select';
      await client.query(undo).catch(() => client.query('rollback'));
    }
    const held = await look.blocked();
    // What was changed becomes visible to the victim now.
    if (client.getTransactionStatus() === 'T') await client.query('commit').catch(() => {});
    return { heard: heard.join('\n'), harm: held ?? (await look.harm()) };
  } finally {
    client.connection.stream.destroy();
  }
}

/** As the text of a tool's statement: one at a time, each in a call of its own; written so by mistake, or injected. */
async function throughProduct(
  keys: MasterKeys,
  attacker: Party,
  statements: readonly string[],
  look: Look,
): Promise<Attempt> {
  const heard: string[] = [];
  const pools = createConnectionPools({ maxConnections: 1, maxIdleMs: 60_000, waitMs: 1_000 });
  const database = (mode: Mode) =>
    openTenantDatabase(
      async ({ statementMs }) => ({
        endpoint: attacker.endpoint,
        context: contextOf(keys, attacker, { mode, statementMs }),
      }),
      {
        mode,
        deadline: Date.now() + 10_000,
        signal: new AbortController().signal,
        maxRows: 1_000,
        maxBytes: 1_000_000,
        roundTrips: 'one',
      },
      pools,
    );
  const listen = async (query: Promise<{ rows: unknown }>) => {
    try {
      heard.push(say((await query).rows));
    } catch (error) {
      // Told to the tool alone; `cause`, which is for our own log, may quote what it likes.
      const { message, sqlstate, constraint } = error as {
        message: string;
        sqlstate?: string;
        constraint?: string;
      };
      heard.push(say({ message, sqlstate, constraint }));
    }
  };
  try {
    for (const text of statements) {
      await listen(database('r').query({ text, types: asText }));
      await listen(database('w').query({ text, types: asText }));
    }
    const several = database('w').transaction(async (tx) => {
      for (const text of statements) {
        await tx.query('savepoint here');
        await listen(
          tx.query({ text, types: asText }).catch(async (error) => {
            await tx.query('rollback to here');
            throw error;
          }),
        );
      }
      return { rows: await look.blocked() };
    });
    await listen(several);
    const during = await several.then(
      ({ rows }) => rows,
      () => undefined,
    );
    return { heard: heard.join('\n'), harm: during ?? (await look.harm()) };
  } finally {
    await pools.close();
  }
}

/** Values as the server writes them. */
const asText = { getTypeParser: () => (value: unknown) => value };

function say(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(say).join('\n');
  if (value === null || typeof value !== 'object') return String(value);
  return Object.values(value).map(say).join('\n');
}
