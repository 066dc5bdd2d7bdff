import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { leftOut } from '../isolation/rows.ts';
import { reading, type Side, writing } from './side.ts';
import { landing, stagingSchema } from './staging.ts';
import type { MovedTable } from './tables.ts';

/**
 * The adopting team's triggers, which have fired where the tenant wrote its rows. On a move's own inserts and deletes they
 * would change what is carried over, or record what has never happened.
 */
const ofTables = `
  with moved as (select c.oid from pg_class c where c.relname = any ($2)
                    and c.relnamespace = (select oid from pg_namespace where nspname = $1)),
   relation as (select oid from moved union select p.relid from moved m, pg_partition_tree(m.oid) p),
   trigger as (
     select g.*, n.nspname, c.relname from relation r join pg_class c on c.oid = r.oid join pg_namespace n on n.oid = c.relnamespace
       join pg_trigger g on g.tgrelid = r.oid where not g.tgisinternal and g.tgname <> 'tenancy_capture' and g.tgenabled <> 'D')`;

const names = (tables: readonly Pick<MovedTable, 'name'>[]) => tables.map(({ name }) => name);
const kept = (target: Side) => `${stagingSchema(target)}.triggers`;

/** Until the home opens, in tables that are its own. Safe to repeat: an attempt may have opened it and died. */
export async function disableTriggers(target: Side, tables: readonly MovedTable[]): Promise<void> {
  const { connection, home } = target;
  if (!isolations[home.strategy].ownsTables) return;
  await writing(target, landing, async () => {
    const { rows } = await connection.query<{ disabled: string; enabled: string }>(
      `${ofTables}
       select format('alter table only %I.%I disable trigger %I', nspname, relname, tgname) as disabled,
              format('alter table only %I.%I enable %strigger %I', nspname, relname,
                     case tgenabled when 'A' then 'always ' when 'R' then 'replica ' else '' end, tgname) as enabled from trigger`,
      [home.schema, names(tables)],
    );
    await connection.query(`create table if not exists ${kept(target)} (statement text primary key)`);
    for (const { disabled, enabled } of rows) {
      await connection.query(disabled);
      await connection.query(`insert into ${kept(target)} values ($1) on conflict do nothing`, [enabled]);
    }
  });
}

/** As they were, in the transaction that opens the home. Its constraints first: they hold the tables while they wait. */
export const enablingTriggers = (target: Side): string =>
  isolations[target.home.strategy].ownsTables
    ? `set local role tenancy_owner;
       do $$ declare command text; begin
         if to_regclass('${kept(target)}') is not null and exists (select from ${kept(target)}) then
           set constraints all immediate;
           for command in select statement from ${kept(target)} loop execute command; end loop;
           delete from ${kept(target)};
         end if;
       end $$;`
    : '';

/**
 * Tables that others use keep their triggers. In a transaction.
 * @throws TenantryError `move_refused` when one would fire on what a move inserts or deletes
 */
export async function requireQuiet(
  { connection, home }: Side,
  tables: readonly Pick<MovedTable, 'name'>[],
): Promise<void> {
  const { rows } = await connection.query<{ name: string }>(
    `${ofTables}
     select distinct relname || '.' || tgname as name from trigger
      where tgparentid = 0 and tgenabled <> 'R' and tgtype & 12 <> 0
        and pg_get_triggerdef(oid) !~ $3 order by 1`,
    [home.schema, names(tables), leftOut.pattern],
  );
  if (rows.length > 0)
    throw new TenantryError(
      'move_refused',
      `Triggers of shared tables would fire on what a move inserts and deletes there: ${rows.map(({ name }) => name).join(', ')}. Give each, by a migration, the condition ${leftOut.condition}.`,
    );
}

/** The same for both homes of a move. */
export async function requireQuietShared(sides: readonly Side[], tables: readonly MovedTable[]) {
  for (const side of sides)
    if (!isolations[side.home.strategy].ownsTables) await reading(side, () => requireQuiet(side, tables));
}
