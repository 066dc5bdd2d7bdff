import { type ControlConnection, identifier } from '../database/connect.ts';
import { leftOut } from '../isolation/rows.ts';
import { importRefused } from './manifest.ts';

/** One that fires when a row comes in. */
export interface Trigger {
  readonly table: string;
  /** The table, or one of its partitions, under the name that a statement gives it. */
  readonly relation: string;
  readonly name: string;
  readonly isAlways: boolean;
}

/**
 * The home's own triggers that have to rest while rows come into these tables. None where others share them: it would rest for
 * them too, and they would wait until it does.
 * @throws TenantryError `import_refused` when one of shared tables would fire
 */
export async function triggersOf(
  connection: ControlConnection,
  { schema, ownsTables }: { schema: string; ownsTables: boolean },
  tables: readonly string[],
): Promise<Trigger[]> {
  const { rows } = await connection.query<Trigger & { isLeftOut: boolean }>(
    `select c.relname as table, format('%I.%I', n.nspname, r.relname) as relation, g.tgname as name, g.tgenabled = 'A' as "isAlways",
            pg_get_triggerdef(g.oid) ~ $3 as "isLeftOut"
       from pg_class c
       cross join lateral (select c.oid union select relid from pg_partition_tree(c.oid)) part (oid)
       join pg_class r on r.oid = part.oid join pg_namespace n on n.oid = r.relnamespace join pg_trigger g on g.tgrelid = r.oid
      where c.relnamespace = (select oid from pg_namespace where nspname = $1) and c.relname = any ($2)
        and not g.tgisinternal and g.tgname <> 'tenancy_capture' and g.tgenabled in ('O', 'A')
        and g.tgtype & 4 = 4 -- on insert
      order by relation, name`,
    [schema, [...tables], leftOut.pattern],
  );
  if (ownsTables) return rows;
  const fires = rows.filter(({ isLeftOut }) => !isLeftOut).map(({ table, name }) => `${name} of ${table}`);
  if (fires.length > 0)
    throw importRefused(
      `These triggers would fire for the rows that come in: ${[...new Set(fires)].join(', ')}. They can rest only where a tenant has tables of its own, and these are shared. Give each, by a migration, the condition ${leftOut.condition}, import into a tenant of the strategy schema or database, or leave the table out.`,
    );
  return [];
}

/**
 * Runs `work` while these triggers rest: what they wrote when the rows were made is among the rows that come in. Foreign keys
 * are checked and moves see the rows. In a transaction, as the owner; whoever writes to such a table meanwhile waits for its end.
 */
export async function resting(
  connection: ControlConnection,
  triggers: readonly Trigger[],
  work: () => Promise<void>,
): Promise<void> {
  const relations = [...new Set(triggers.map(({ relation }) => relation))];
  // All at once: between two of them a writer could wait for us and we for it.
  if (relations.length > 0)
    await connection.query(`lock table only ${relations.join(', only ')} in share row exclusive mode`);
  for (const { relation, name } of triggers)
    await connection.query(`alter table only ${relation} disable trigger ${identifier(name)}`);
  await work();
  for (const { relation, name, isAlways } of triggers)
    await connection.query(
      `alter table only ${relation} enable ${isAlways ? 'always ' : ''}trigger ${identifier(name)}`,
    );
}
