import { TenantryError } from '../errors.ts';
import type { Side } from './side.ts';

/** A table that holds rows of tenants. Reference tables (`-- shared`) are the same in every home: they stay. */
export interface MovedTable {
  readonly name: string;
  readonly isPartitioned: boolean;
  /** Other tables, no partitions, inherit from it: it shows their rows as its own. */
  readonly isInherited: boolean;
  /** Of the primary key, in its order; it begins with tenant_id. A type is as one casts to it, with the column's collation. */
  readonly key: readonly { readonly name: string; readonly type: string }[];
  /** All but the generated ones, whose values PostgreSQL computes anew; of those only the key's, by which rows are found. */
  readonly columns: readonly string[];
  /** The columns that an insert may name. */
  readonly given: readonly string[];
  /** `generated … as identity`: their values are carried, and the sequence goes on after them. */
  readonly identities: readonly string[];
  /** It points at itself or at a table that comes after it: its rows find theirs only when all are there. */
  readonly pointsAhead: boolean;
  /** Its foreign keys to tables that are moved, itself included. */
  readonly pointsAt: readonly ForeignKey[];
  /** Foreign keys that do something to rows here, or refuse at once, when the row they point at is deleted. */
  readonly actsOn: readonly ForeignKey[];
}

export interface ForeignKey {
  /** The table that it points at. */
  readonly parent: string;
  readonly columns: readonly string[];
  readonly parentColumns: readonly string[];
}

interface Row {
  name: string;
  partitioned: boolean;
  inherited: boolean;
  key: { name: string; type: string }[] | null;
  columns: string[];
  given: string[];
  identities: string[];
  parents: { parent: string; columns: string[]; parentColumns: string[]; acts: boolean; refuses: boolean }[];
}

/** The home's tables, those that others point at first. In a transaction of `reading` or `writing`. */
export async function readTables({ connection, home }: Side): Promise<MovedTable[]> {
  const { rows } = await connection.query<Row>(
    `select c.relname as name, c.relkind = 'p' as partitioned,
            c.relkind = 'r' and exists (select from pg_inherits i where i.inhparent = c.oid) as inherited,
            (select json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)
                  || case when a.attcollation <> t.typcollation then ' collate ' || a.attcollation::regcollation else '' end) order by k.place)
               from pg_constraint p, unnest(p.conkey) with ordinality k(attnum, place), pg_attribute a join pg_type t on t.oid = a.atttypid
              where p.conrelid = c.oid and p.contype = 'p' and a.attrelid = c.oid and a.attnum = k.attnum) as key,
            (select json_agg(a.attname order by a.attname) from pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and (a.attgenerated = ''
                 or exists (select from pg_constraint p where p.conrelid = c.oid and p.contype = 'p' and a.attnum = any (p.conkey)))) as columns,
            (select json_agg(a.attname order by a.attname) from pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as given,
            coalesce((select json_agg(a.attname order by a.attname) from pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attidentity <> ''), '[]') as identities,
            coalesce((select json_agg(json_build_object('parent', p.relname, 'acts', f.confdeltype <> 'a', 'refuses', f.confdeltype = 'r',
                'columns', (select json_agg(a.attname order by k.place) from unnest(f.conkey) with ordinality k(attnum, place)
                              join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum),
                'parentColumns', (select json_agg(a.attname order by k.place) from unnest(f.confkey) with ordinality k(attnum, place)
                              join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.attnum)) order by f.conname)
               from pg_constraint f join pg_class p on p.oid = f.confrelid
              where f.conrelid = any (c.oid || array(select t.relid::oid from pg_partition_tree(c.oid) t))
                and f.contype = 'f' and f.conparentid = 0), '[]') as parents
       from pg_depend d join pg_class c on c.oid = d.objid
      where d.refclassid = 'pg_namespace'::regclass and d.refobjid = (select oid from pg_namespace where nspname = $1)
        and d.classid = 'pg_class'::regclass and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> '_migrations'
        and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype and not a.attisdropped)
      order by c.relname`,
    [home.schema],
  );
  const names = new Set(rows.map(({ name }) => name));
  const ordered = inOrder(rows);
  const place = new Map(ordered.map(({ name }, index) => [name, index]));
  return ordered.map(({ name, partitioned, inherited, key, columns, given, identities, parents }, index) => {
    if (key === null)
      throw new TenantryError(
        'move_refused',
        `The table ${name} has no primary key. Add one by a migration.`,
      );
    const known = parents.filter(({ parent }) => names.has(parent));
    const pointsAt = known.map(({ parent, columns, parentColumns }) => ({ parent, columns, parentColumns }));
    const actsOn = pointsAt.filter((_, at) => known[at]!.acts);
    const pointsAhead = parents.some(({ parent }) => (place.get(parent) ?? -1) >= index);
    return {
      name,
      isPartitioned: partitioned,
      isInherited: inherited,
      key,
      columns,
      given,
      identities,
      pointsAhead,
      pointsAt,
      actsOn,
    };
  });
}

/** @throws TenantryError `move_refused` before anything is copied: such rows would be copied and counted twice */
export function requireNotInherited(tables: readonly MovedTable[]): void {
  const inherited = tables.filter(({ isInherited }) => isInherited).map(({ name }) => name);
  if (inherited.length > 0)
    throw new TenantryError(
      'move_refused',
      `Other tables inherit from ${inherited.join(', ')}. Make them partitions, or tables of their own, by a migration.`,
    );
}

/**
 * Tables that others point at first. In a circle, one that no other of them would keep from being deleted: the rest is
 * left to constraints that are checked at the end.
 */
function inOrder(rows: readonly Row[]): Row[] {
  const left = new Map(rows.map((row) => [row.name, row]));
  const ordered: Row[] = [];
  while (left.size > 0) {
    const waiting = [...left.values()];
    const waitsFor = ({ name, parents }: Row) =>
      parents.filter(({ parent }) => parent !== name && left.has(parent));
    const next =
      waiting.find((row) => waitsFor(row).length === 0) ??
      waiting.find((row) => !waitsFor(row).some(({ refuses }) => refuses)) ??
      waiting[0]!;
    left.delete(next.name);
    ordered.push(next);
  }
  return ordered;
}

/** @throws TenantryError `move_refused` when one home has other tables or columns than the other */
export function requireSameTables(source: readonly MovedTable[], target: readonly MovedTable[]): void {
  const shape = (tables: readonly MovedTable[]) =>
    new Map(
      tables.map(({ name, key, columns, identities }) => [name, JSON.stringify([key, columns, identities])]),
    );
  const [here, there] = [shape(source), shape(target)];
  const differing = [...new Set([...here.keys(), ...there.keys()])].filter(
    (name) => here.get(name) !== there.get(name),
  );
  if (differing.length > 0)
    throw new TenantryError(
      'move_refused',
      `The two homes have different tables: ${differing.join(', ')}. Run \`npm run tenants -- migrate drift\`, then migrate.`,
    );
}
