import { connectClient } from '../../../functions/lib/database/connection.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import { contextOf, type Party } from './party.ts';
import { relationOf } from './tables.ts';

/** A neighbour's lock is felt after this long, ms. */
const PATIENCE_MS = 400;

/** The victim's own view of an attack: whether its rows are as they were, and whether it can write them at once. */
export interface Victim {
  readonly party: Party;
  /** @returns what is wrong, or undefined. `newcomer`: on a new connection, for an attack on those that are opened after it. */
  harm(newcomer?: boolean): Promise<string | undefined>;
  close(): Promise<void>;
}

export async function watch(keys: MasterKeys, party: Party, tables: readonly string[]): Promise<Victim> {
  let client = await connectClient(party.endpoint, false);
  const before = await digest(client, keys, party, tables);
  let turn: Promise<unknown> = Promise.resolve();

  async function lookAgain(newcomer: boolean): Promise<string | undefined> {
    try {
      if (newcomer) {
        client.connection.stream.destroy();
        client = await connectClient(party.endpoint, false);
      }
      const now = await digest(client, keys, party, tables);
      return now === before ? undefined : 'its rows are not what they were';
    } catch (error) {
      const { message, cause } = error as Error;
      // Nothing of this session is to be told of the next attack.
      client.connection.stream.destroy();
      client = await connectClient(party.endpoint, false).catch(() => client);
      return `it is kept from its rows: ${(cause as Error | undefined)?.message ?? message}`;
    }
  }

  return {
    party,
    harm: (newcomer = false) => {
      // Attackers that work at the same time take turns here.
      const looked = turn.then(() => lookAgain(newcomer));
      turn = looked;
      return looked;
    },
    close: () => client.end(),
  };
}

/** Writes to every table, in a transaction that is rolled back: then says what is in all of them. */
async function digest(
  client: Awaited<ReturnType<typeof connectClient>>,
  keys: MasterKeys,
  party: Party,
  tables: readonly string[],
): Promise<string> {
  const relations = tables.map((table) => relationOf(party.schema, table));
  const touch = relations.map(
    (relation) =>
      `update ${relation} set tenant_id = tenant_id where ctid = any (array(select ctid from ${relation} limit 3))`,
  );
  // Which version of which row, not what is in it: a change makes a new one, and this is cheap for large tables.
  const sums = relations.map(
    (relation) =>
      `(select concat(count(*), ':', sum(hashtextextended(ctid::text, xmin::text::bigint))) from ${relation})`,
  );
  const results: unknown = await client.query(
    `begin isolation level read committed read write;
     select tenancy.enter('${contextOf(keys, party)}');
     set local lock_timeout = ${PATIENCE_MS};
     ${touch.join('; ')};
     rollback;
     begin isolation level read committed read only;
     select tenancy.enter('${contextOf(keys, party, { mode: 'r' })}');
     select concat_ws(' ', ${sums.join(', ')}) as digest;
     commit`,
  );
  return (results as { rows: { digest: string }[] }[]).at(-2)!.rows[0]!.digest;
}
