import { identifier } from '../database/connect.ts';
import { isPathOfItsOwn, pathOfItsOwn } from '../database/failure.ts';
import { TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import { isolations } from '../isolation/isolation.ts';
import { atOnce } from './at-once.ts';
import { requireHold } from './hold.ts';
import { Pace } from './pace.ts';
import { keyNames, list } from './rows.ts';
import { type Hold, reading, type Side, writing } from './side.ts';
import { type MovedTable, readTables, requireSameTables } from './tables.ts';

/** States of a home that serves nobody: only then does a mover write its rows. */
export const landing = ['provisioning', 'moved'] as const;

/** The mover's own schema beside the target's: nobody but the owner has a right on it. */
export const stagingSchema = ({ home }: Pick<Side, 'home'>) => `moving_${home.homeId.replaceAll('-', '')}`;

/** Where rows of each table wait. Not logged: after a crash of the server all of it is empty, how far the copy was too. */
export const stagedName = (target: Side, index: number) => `${stagingSchema(target)}.rows_${index}`;

/**
 * Rows can't be copied into shared tables directly (PostgreSQL refuses COPY under row security, and their constraints
 * hold at the end of every transaction), nor into partitioned ones, whose indexes stay: they wait until all are there. So do
 * rows with a generated column in their key, which COPY would not take and which says how far the copy is.
 */
export const isStaged = (target: Side, { isPartitioned, columns, given }: MovedTable) =>
  isPartitioned || columns.length > given.length || !isolations[target.home.strategy].ownsTables;

/**
 * Makes what the copy needs in the target; safe to repeat. Of tables that nobody uses yet, keys, indexes, foreign keys and
 * the check of tenant_id are taken away and kept as text: rows come faster and in any order. `complete`: the target has the
 * rows already, up to what has been captured since.
 */
export async function prepareStaging(
  target: Side,
  source: readonly MovedTable[],
  complete = false,
): Promise<void> {
  const { connection, home } = target;
  const schema = stagingSchema(target);
  await writing(target, landing, async () => {
    const { rows } = await connection.query(`select to_regclass('${schema}.parked') is not null as made`, []);
    if (rows[0]!.made) return;
    const tables = await readTables(target);
    requireSameTables(source, tables);
    await connection.query(
      `create schema ${schema};
       create unlogged table ${schema}.progress (table_name text primary key, upto text, done boolean not null);
       create table ${schema}.landed (at timestamptz not null default now());
       create table ${schema}.parked (place integer generated always as identity primary key, statement text not null, makes_key boolean not null default false);`,
    );
    // In the source's order: the target's changes with the foreign keys that are taken away.
    for (const [index, table] of source.entries()) {
      const { name, columns } = table;
      await connection.query(
        `create unlogged table ${stagedName(target, index)} as select ${list(columns)} from ${identifier(name)} with no data`,
      );
      const key = `alter table ${stagedName(target, index)} add primary key (${list(keyNames(table))})`;
      if (!complete && isStaged(target, table)) await keep(target, key, true);
    }
    if (complete) await connection.query(`insert into ${schema}.landed default values`);
    else if (isolations[home.strategy].ownsTables) await park(target, tables);
  });
}

async function park(target: Side, tables: readonly MovedTable[]): Promise<void> {
  const { connection, home } = target;
  const names = tables.map(({ name }) => name);
  const { rows } = await connection.query<{ taken: string; restored: string; makes_key: boolean }>(
    `with moved as (select c.oid, c.relname, c.relkind from pg_class c where c.relname = any ($2)
                       and c.relnamespace = (select oid from pg_namespace where nspname = $1)),
     -- A partition may have a foreign key of its own.
     pointing as (select oid, relname from moved
                  union select c.oid, c.relname from moved m, pg_partition_tree(m.oid) p join pg_class c on c.oid = p.relid),
     item as (
       -- A digest for each row that comes in: of rows that are selected by their tenant_id, it is asked once more when all are there.
       select 0 as place, c.conname::text as name, format('alter table %I drop constraint %I', m.relname, c.conname) as taken,
              format('alter table %I add constraint %I %s', m.relname, c.conname, pg_get_constraintdef(c.oid)) as restored
         from pg_constraint c join moved m on m.oid = c.conrelid where c.contype = 'c' and c.conname = 'tenancy_home' and m.relkind = 'r'
       union all
       select 1, f.conname, format('alter table %I drop constraint %I', m.relname, f.conname),
              format('alter table %I add constraint %I %s', m.relname, f.conname, pg_get_constraintdef(f.oid))
         from pg_constraint f join pointing m on m.oid = f.conrelid where f.contype = 'f' and f.conparentid = 0
       union all
       select 2, u.conname, format('alter table %I drop constraint %I', m.relname, u.conname),
              format('alter table %I add constraint %I %s', m.relname, u.conname, pg_get_constraintdef(u.oid))
         from pg_constraint u join moved m on m.oid = u.conrelid where u.contype in ('u', 'x') and m.relkind = 'r'
       union all
       select 3, x.relname, format('drop index %I', x.relname), pg_get_indexdef(i.indexrelid)
         from pg_index i join moved m on m.oid = i.indrelid join pg_class x on x.oid = i.indexrelid
        where m.relkind = 'r' and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u', 'x'))
       union all
       -- A view may depend on a key that it groups by.
       select 4, p.conname, format('alter table %I drop constraint %I', m.relname, p.conname),
              format('alter table %I add constraint %I %s', m.relname, p.conname, pg_get_constraintdef(p.oid))
         from pg_constraint p join moved m on m.oid = p.conrelid where p.contype = 'p' and m.relkind = 'r'
          and not exists (select from pg_depend d where d.refclassid = 'pg_constraint'::regclass and d.refobjid = p.oid and d.deptype = 'n'))
     select taken, restored, place = 4 as makes_key from item order by place, name`,
    [home.schema, names],
  );
  for (const { taken } of rows) await connection.query(taken);
  // Foreign keys last: they need the unique keys that they point at.
  for (const { restored, makes_key } of rows.toReversed()) await keep(target, restored, makes_key);
}

const keep = (target: Side, statement: string, makesKey: boolean) =>
  target.connection.query(
    `insert into ${stagingSchema(target)}.parked (statement, makes_key) values ($1, $2)`,
    [statement, makesKey],
  );

/** When all rows are there: from here on they are found by their keys. @returns whether there is more to do */
export const makeKeys = (target: Side, isOver: () => boolean): Promise<boolean> =>
  restore(target, 'where makes_key', isOver);

/** One by one, because each may take minutes. @returns whether there is more to do */
async function restore(target: Side, which: string, isOver: () => boolean): Promise<boolean> {
  const parked = `${stagingSchema(target)}.parked`;
  for (;;) {
    const isLast = await writing(target, landing, async () => {
      const { rows } = await target.connection.query<{ place: number; statement: string }>(
        `select * from ${parked} ${which} order by place limit 1`,
        [],
      );
      if (rows[0] === undefined) return true;
      await target.connection.query(rows[0].statement).catch((error) => {
        if (!isPathOfItsOwn(error)) throw error;
        throw new TenantryError('move_refused', `An index can't be made again: ${pathOfItsOwn}.`, {
          cause: error,
        });
      });
      await target.connection.query(`delete from ${parked} where place = $1`, [rows[0].place]);
      return false;
    });
    if (isLast) return false;
    if (isOver()) return true;
  }
}

/** Whether the target's own tables hold what the source held at one moment: from then on only changes are carried. */
export const hasLanded = (target: Side): Promise<boolean> => reading(target, () => landed(target));

async function landed(target: Side): Promise<boolean> {
  const { rows } = await target.connection.query(`select from ${stagingSchema(target)}.landed`, []);
  return rows.length > 0;
}

/** What lands in one statement, some thousand rows: between two of them others go first. */
const LANDING_PAGES = 100;

/**
 * What waited goes into the target's tables, all of it in one transaction, so that every key finds what it points at; then
 * the indexes and foreign keys that were taken away are made again, each checked by PostgreSQL.
 * @param isStopped gives up what has landed so far: unlike `isOver`, which waits for the transaction's end
 * @returns whether there is more to do
 */
export async function land(
  target: Side,
  tables: readonly MovedTable[],
  isOver: () => boolean,
  isStopped = () => false,
): Promise<boolean> {
  const { connection } = target;
  const schema = stagingSchema(target);
  const stopped = new Error('stopped');
  const heed = () => {
    if (isStopped()) throw stopped;
  };
  const landAll = async () => {
    if (await landed(target)) return;
    const staged = [...tables.entries()].filter(([, table]) => isStaged(target, table));
    await connection.query('set constraints all deferred');
    await deleteAll(target, staged.map(([, { name }]) => name).toReversed());
    await connection.query('set constraints all immediate');
    const pace = new Pace(connection);
    for (const [index, table] of staged) {
      // Otherwise each statement checks its own rows: what is left to the end would keep others waiting in one piece.
      if (table.pointsAhead) await connection.query('set constraints all deferred');
      const from = stagedName(target, index);
      await landRows(target, table, from, pace, heed);
      await connection.query(`truncate ${from}`);
      await learn(target, table);
    }
    await connection.query(`insert into ${schema}.landed default values`);
  };
  try {
    await writing(target, landing, landAll);
  } catch (error) {
    if (error === stopped) return true;
    throw error;
  }
  if (await restore(target, '', isOver)) return true;
  const option = isolations[target.home.strategy].ownsTables ? '' : beside;
  await writing(target, landing, () => connection.query(analyze(tables, option)));
  return false;
}

/**
 * Before its rows are looked for: by what is known of a table that was empty, each check would read the whole tenant. It
 * holds a lock until all has landed, which another tenant's landing may have, or wait for: so only where it has to be.
 */
async function learn(target: Side, table: MovedTable): Promise<void> {
  const { connection, home } = target;
  if (isolations[home.strategy].ownsTables) {
    await connection.query(analyze([table]));
    return;
  }
  const { rows } = await connection.query<{ known: boolean }>(
    'select reltuples > 0 as known from pg_class where oid = $1::regclass',
    [identifier(table.name)],
  );
  if (!rows[0]!.known) await connection.query(analyze([table], beside));
}

/** By the pages in which they wait: their order is of no account, and none is read twice. */
async function landRows(
  target: Side,
  table: MovedTable,
  from: string,
  pace: Pace,
  heed: () => void,
): Promise<void> {
  const all = list(table.given);
  const { rows } = await target.connection.query<{ pages: number }>(
    `select (pg_relation_size('${from}') / current_setting('block_size')::integer)::integer as pages`,
    [],
  );
  for (let page = 0; page < rows[0]!.pages; page += LANDING_PAGES) {
    await pace.after(() =>
      target.connection.query(
        `insert into ${identifier(table.name)} (${all}) overriding system value
         select ${all} from ${from} where ctid >= '(${page},0)' and ctid < '(${page + LANDING_PAGES},0)'`,
      ),
    );
    heed();
  }
}

/** Of tables that others use: what cannot be had at once is left to the server's own turn. */
const beside = '(skip_locked)';
const analyze = (tables: readonly MovedTable[], option = '') =>
  `analyze ${option} ${tables.map(({ name }) => identifier(name)).join(', ')}`;

/** What an attempt left that died after its rows had been copied and before the move knew of it. */
async function deleteAll({ connection, home }: Side, tables: readonly string[]): Promise<void> {
  if (tables.length === 0) return;
  const deletions = tables.map((name) => `delete from ${identifier(name)} where tenant_id = $1`);
  await connection.query(atOnce(deletions), [home.tenant]);
}

export const dropStaging = (target: Pick<Hold, 'home' | 'connection'>): Promise<unknown> =>
  asRole(target.connection, 'tenancy_owner', () => target.connection.query(dropping(target)));

/** Beside a home that stays, whose next move may need its own. @throws TenantryError `operation_ended` */
export const dropHeldStaging = (hold: Hold): Promise<unknown> =>
  asRole(hold.connection, 'tenancy_keeper', async () => {
    await requireHold(hold);
    await hold.connection.query(`set local role tenancy_owner; ${dropping(hold)}`);
  });

const dropping = (target: Pick<Side, 'home'>) => `drop schema if exists ${stagingSchema(target)} cascade`;
