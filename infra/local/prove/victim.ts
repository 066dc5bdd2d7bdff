import { connectClient } from '../../../functions/lib/database/connection.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import { contextOf, type Party } from './party.ts';
import { relationOf } from './tables.ts';

/** A neighbour's lock is felt after this long, ms. */
const PATIENCE_MS = 400;

/** The victim's own view of an attack: whether its rows are as they were, and whether it can write them at once. */
export interface Victim {
  readonly party: Party;
  /** Whether it is kept from writing now, to these tables or all. @returns what is wrong, or undefined */
  blocked(tables?: readonly string[]): Promise<string | undefined>;
  /** The same, and whether their rows have changed. `newcomer`: on a new connection, for an attack on those opened after it. */
  harm(tables?: readonly string[], newcomer?: boolean): Promise<string | undefined>;
  close(): Promise<void>;
}

type Client = Awaited<ReturnType<typeof connectClient>>;

export async function watch(keys: MasterKeys, party: Party, tables: readonly string[]): Promise<Victim> {
  const relationsOf = (names: readonly string[]) => names.map((table) => relationOf(party.schema, table));
  let client = await connectClient(party.endpoint, false);
  const digests = (names: readonly string[]) =>
    digest(client, contextOf(keys, party, { mode: 'r' }), relationsOf(names));
  const all = await digests(tables);
  const before = new Map(tables.map((table, index) => [table, all[index]]));
  let turn: Promise<unknown> = Promise.resolve();

  async function look(
    names: readonly string[],
    alsoRows: boolean,
    newcomer: boolean,
  ): Promise<string | undefined> {
    try {
      if (newcomer) {
        client.connection.stream.destroy();
        client = await connectClient(party.endpoint, false);
      }
      await touch(client, contextOf(keys, party), relationsOf(names));
      const now = alsoRows ? await digests(names) : [];
      const changed = names.filter((name, index) => alsoRows && now[index] !== before.get(name));
      return changed.length > 0 ? `its rows are not what they were: ${changed.join(', ')}` : undefined;
    } catch (error) {
      const { message, cause } = error as Error;
      // Nothing of this session is to be told of the next attack.
      client.connection.stream.destroy();
      client = await connectClient(party.endpoint, false).catch(() => client);
      return `it is kept from its rows: ${(cause as Error | undefined)?.message ?? message}`;
    }
  }

  /** Attackers that work at the same time take turns here. */
  const inTurn = (names: readonly string[], alsoRows: boolean, newcomer: boolean) => {
    const looked = turn.then(() => look(names, alsoRows, newcomer));
    turn = looked;
    return looked;
  };

  return {
    party,
    blocked: (names = tables) => inTurn(names, false, false),
    harm: (names = tables, newcomer = false) => inTurn(names, true, newcomer),
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
async function digest(client: Client, context: string, relations: readonly string[]): Promise<string[]> {
  const sums = relations.map(
    (relation) =>
      `(select concat(count(*), ':', sum(hashtextextended(ctid::text, xmin::text::bigint))) from ${relation})`,
  );
  const results: unknown = await client.query(
    `begin isolation level read committed read only;
     select tenancy.enter('${context}');
     select array[${sums.join(', ')}]::text[] as digests;
     commit`,
  );
  return (results as { rows: { digests: string[] }[] }[])[2]!.rows[0]!.digests;
}
