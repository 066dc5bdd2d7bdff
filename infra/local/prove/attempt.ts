import { type ConnectionPools, createConnectionPools } from '../../../functions/lib/database/pools.ts';
import { openTenantDatabase } from '../../../functions/lib/database/tenant-database.ts';
import type { Mode } from '../../../functions/lib/database/types.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import type { Way } from './attack.ts';
import { asText, say } from './heard.ts';
import { contextOf, type Party } from './party.ts';
import { openLogin } from './raw-login.ts';

/** All that came back, and a look at the victims while the attacker still holds what it got. */
export interface Attempt {
  /** Every value, error field and notice as text, one a line. */
  readonly heard: string;
  readonly harm: string | undefined;
}

/** From the victim's side. */
export interface Look {
  blocked(): Promise<string | undefined>;
  harm(): Promise<string | undefined>;
}

/** An attacker's connections. To make them costs more than what is tried on them: each attempt finds them as new. */
export interface Sessions {
  /** Runs the statements on the attacker's own login, as far as they get. */
  attempt(from: 'call' | 'session', statements: readonly string[], way: Way, look: Look): Promise<Attempt>;
  close(): Promise<void>;
}

export function openSessions(keys: MasterKeys, attacker: Party): Sessions {
  const login = openLogin(keys, attacker);
  const pools = createConnectionPools({ maxConnections: 1, maxIdleMs: 60_000, waitMs: 1_000 });
  return {
    attempt: (from, statements, way, look) =>
      way === 'product'
        ? throughProduct(keys, attacker, statements, look, pools)
        : login.attempt(from, statements, way, look),
    async close() {
      login.close();
      await pools.close();
    },
  };
}

/** As the text of a tool's statement: one at a time, each in a call of its own; written so by mistake, or injected. */
async function throughProduct(
  keys: MasterKeys,
  attacker: Party,
  statements: readonly string[],
  look: Look,
  pools: ConnectionPools,
): Promise<Attempt> {
  const heard: string[] = [];
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
}
