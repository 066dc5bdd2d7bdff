import { connectClient } from '../../../functions/lib/database/connection.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import { contextOf, type Party } from './party.ts';
import { relationOf } from './tables.ts';

/** A neighbour's lock is felt after this long, ms. */
const PATIENCE_MS = 400;

/** The victim's own view of an attack: whether its rows are as they were, and whether it can write them at once. */
export interface Victim {
  readonly party: Party;
  /** Whether it is kept from writing now. @returns what is wrong, or undefined */
  blocked(): Promise<string | undefined>;
  /** The same, and whether its rows have changed. `newcomer`: on a new connection, for an attack on those opened after it. */
  harm(newcomer?: boolean): Promise<string | undefined>;
  close(): Promise<void>;
}

type Client = Awaited<ReturnType<typeof connectClient>>;

export async function watch(keys: MasterKeys, party: Party, tables: readonly string[]): Promise<Victim> {
  const relations = tables.map((table) => relationOf(party.schema, table));
  let client = await connectClient(party.endpoint, false);
  const before = await digest(client, contextOf(keys, party, { mode: 'r' }), relations);
  let turn: Promise<unknown> = Promise.resolve();

  async function look(alsoRows: boolean, newcomer: boolean): Promise<string | undefined> {
    try {
      if (newcomer) {
        client.connection.stream.destroy();
        client = await connectClient(party.endpoint, false);
      }
      await touch(client, contextOf(keys, party), relations);
      const isSame =
        !alsoRows || before === (await digest(client, contextOf(keys, party, { mode: 'r' }), relations));
      return isSame ? undefined : 'its rows are not what they were';
    } catch (error) {
      const { message, cause } = error as Error;
      // Nothing of this session is to be told of the next attack.
      client.connection.stream.destroy();
      client = await connectClient(party.endpoint, false).catch(() => client);
      return `it is kept from its rows: ${(cause as Error | undefined)?.message ?? message}`;
    }
  }

  /** Attackers that work at the same time take turns here. */
  const inTurn = (alsoRows: boolean, newcomer: boolean) => {
    const looked = turn.then(() => look(alsoRows, newcomer));
    turn = looked;
    return looked;
  };

  return {
    party,
    blocked: () => inTurn(false, false),
    harm: (newcomer = false) => inTurn(true, newcomer),
    close: () => client.end(),
  };
}

/** May it write, and does it get the locks that it takes for that? Changes nothing. */
async function touch(client: Client, context: string, relations: readonly string[]): Promise<void> {
  const writes = relations.map(
    (relation) =>
      `update ${relation} set tenant_id = tenant_id where false; select from ${relation} limit 20 for update`,
  );
  await client.query(
    `begin isolation level read committed read write;
     select tenancy.enter('${context}');
     set local lock_timeout = ${PATIENCE_MS};
     ${writes.join('; ')};
     rollback`,
  );
}

/** Which version of which row, not what is in it: a change makes a new one, and this is cheap for large tables. */
async function digest(client: Client, context: string, relations: readonly string[]): Promise<string> {
  const sums = relations.map(
    (relation) =>
      `(select concat(count(*), ':', sum(hashtextextended(ctid::text, xmin::text::bigint))) from ${relation})`,
  );
  const results: unknown = await client.query(
    `begin isolation level read committed read only;
     select tenancy.enter('${context}');
     select array_to_string(array[${sums.join(', ')}], ' ') as digest;
     commit`,
  );
  return (results as { rows: { digest: string }[] }[])[2]!.rows[0]!.digest;
}
