import type { ControlConnection } from '../database/connect.ts';
import { isolations } from '../isolation/isolation.ts';
import { quote, reading, type Side, writing } from './side.ts';
import { type MovedTable, readTables, requireSameTables } from './tables.ts';

/** States of a home that serves nobody: only then does a mover write its rows. */
export const landing = ['provisioning', 'moved'] as const;

/** The mover's own schema beside the target's: nobody but the owner has a right on it. */
export const stagingSchema = ({ home }: Pick<Side, 'home'>) => `moving_${home.homeId.replaceAll('-', '')}`;

/** Where rows of each table wait. Not logged: after a crash of the server all of it is empty, how far the copy was too. */
export const stagedName = (target: Side, index: number) => `${stagingSchema(target)}.rows_${index}`;

/**
 * Rows can't be copied into shared tables directly (PostgreSQL refuses COPY under row security, and their constraints
 * hold at the end of every transaction), nor into partitioned ones, whose indexes stay: they wait until all are there.
 */
export const isStaged = (target: Side, { isPartitioned }: MovedTable) =>
  isPartitioned || !isolations[target.home.strategy].ownsTables;

/**
 * Makes what the copy needs in the target; safe to repeat. Of tables that nobody uses yet, indexes and foreign keys are
 * taken away and kept as text: rows come faster and in any order. `complete`: the target has the rows already, up to
 * what has been captured since.
 */
export async function prepareStaging(
  target: Side,
  source: readonly MovedTable[],
  complete = false,
): Promise<void> {
  const { connection, home } = target;
  const schema = stagingSchema(target);
  await writing(target, landing, async () => {
    const tables = await readTables(target);
    requireSameTables(source, tables);
    const { rows } = await connection.query(`select to_regclass('${schema}.parked') is not null as made`, []);
    if (rows[0]!.made) return;
    await connection.query(
      `create schema ${schema};
       create unlogged table ${schema}.progress (table_name text primary key, upto text, done boolean not null);
       create table ${schema}.landed (at timestamptz not null default now());
       create table ${schema}.parked (place integer generated always as identity primary key, statement text not null);`,
    );
    // In the source's order: the target's changes with the foreign keys that are taken away.
    for (const [index, { name, columns, key }] of source.entries())
      await connection.query(
        `create unlogged table ${stagedName(target, index)} as select ${columns.map(quote).join(', ')} from ${quote(name)} with no data;
         alter table ${stagedName(target, index)} add primary key (${key.map((part) => quote(part.name)).join(', ')})`,
      );
    if (complete) await connection.query(`insert into ${schema}.landed default values`);
    else if (isolations[home.strategy].ownsTables) await park(target, tables);
  });
}

async function park(target: Side, tables: readonly MovedTable[]): Promise<void> {
  const { connection, home } = target;
  const schema = stagingSchema(target);
  const names = tables.map(({ name }) => name);
  const { rows } = await connection.query<{ taken: string; restored: string }>(
    `with moved as (select c.oid, c.relname, c.relkind from pg_class c where c.relname = any ($2)
                       and c.relnamespace = (select oid from pg_namespace where nspname = $1)),
     item as (
       select 1 as place, f.conname::text as name, format('alter table %I drop constraint %I', m.relname, f.conname) as taken,
              format('alter table %I add constraint %I %s', m.relname, f.conname, pg_get_constraintdef(f.oid)) as restored
         from pg_constraint f join moved m on m.oid = f.conrelid where f.contype = 'f' and f.conparentid = 0
       union all
       select 2, u.conname, format('alter table %I drop constraint %I', m.relname, u.conname),
              format('alter table %I add constraint %I %s', m.relname, u.conname, pg_get_constraintdef(u.oid))
         from pg_constraint u join moved m on m.oid = u.conrelid where u.contype in ('u', 'x') and m.relkind = 'r'
       union all
       select 3, x.relname, format('drop index %I', x.relname), pg_get_indexdef(i.indexrelid)
         from pg_index i join moved m on m.oid = i.indrelid join pg_class x on x.oid = i.indexrelid
        where m.relkind = 'r' and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u', 'x')))
     select taken, restored from item order by place, name`,
    [home.schema, names],
  );
  for (const { taken } of rows) await connection.query(taken);
  // Foreign keys last: they need the unique keys that they point at.
  for (const { restored } of rows.toReversed())
    await connection.query(`insert into ${schema}.parked (statement) values ($1)`, [restored]);
}

/** Whether the target's own tables hold what the source held at one moment: from then on only changes are carried. */
export const hasLanded = (target: Side): Promise<boolean> => reading(target, () => landed(target));

async function landed(target: Side): Promise<boolean> {
  const { rows } = await target.connection.query(`select from ${stagingSchema(target)}.landed`, []);
  return rows.length > 0;
}

/**
 * What waited goes into the target's tables, all of it in one transaction, so that every key finds what it points at; then
 * the indexes and foreign keys that were taken away are made again, each checked by PostgreSQL.
 */
export async function land(target: Side, tables: readonly MovedTable[]): Promise<void> {
  const { connection } = target;
  const schema = stagingSchema(target);
  await writing(target, landing, async () => {
    if (await landed(target)) return;
    await connection.query('set constraints all deferred');
    const staged = [...tables.entries()].filter(([, table]) => isStaged(target, table));
    for (const [, { name }] of staged.toReversed()) await deleteAll(target, name);
    for (const [index, { name, columns }] of staged) {
      const list = columns.map(quote).join(', ');
      await connection.query(
        `insert into ${quote(name)} (${list}) overriding system value select ${list} from ${stagedName(target, index)};
         truncate ${stagedName(target, index)}`,
      );
    }
    await connection.query(`insert into ${schema}.landed default values`);
  });
  for (;;) {
    const isLast = await writing(target, landing, async () => {
      const { rows } = await connection.query<{ place: number; statement: string }>(
        `select * from ${schema}.parked order by place limit 1`,
        [],
      );
      if (rows[0] === undefined) return true;
      await connection.query(rows[0].statement);
      await connection.query(`delete from ${schema}.parked where place = $1`, [rows[0].place]);
      return false;
    });
    if (isLast) break;
  }
  if (isolations[target.home.strategy].ownsTables)
    await writing(target, landing, () =>
      connection.query(tables.map(({ name }) => `analyze ${quote(name)}`).join(';')),
    );
}

/** What an attempt left that died after its rows had been copied and before the move knew of it. */
const deleteAll = ({ connection, home }: Side, table: string) =>
  connection.query(`delete from ${quote(table)} where tenant_id = $1`, [home.tenant]);

export const dropStaging = async (target: {
  readonly home: Side['home'];
  readonly connection: ControlConnection;
}): Promise<void> => {
  await target.connection.query(
    `begin; set local role tenancy_owner; drop schema if exists ${stagingSchema(target)} cascade; commit`,
  );
};
