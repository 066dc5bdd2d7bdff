import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { keyNames, keyObject, list, rowHash } from './rows.ts';
import { quote, reading, type Side } from './side.ts';
import type { MovedTable } from './tables.ts';

/** Keys named of each table: enough to look at. */
const NAMED = 10;
/** Rows fall into as many groups by their key: only groups that differ are looked at row by row. */
const GROUPS = 256;

interface Group {
  group: number;
  rows: string;
  sum: string;
  /** Of other tenants: there are none, or the move ends. */
  foreign: string;
}

export interface Digest {
  readonly rows: number;
  readonly groups: ReadonlyMap<number, string>;
}

/** Where the rows are all this tenant's, all of them are looked at; in shared tables only this tenant's are seen. */
const own = ({ home }: Side) =>
  isolations[home.strategy].ownsTables ? '' : `where t.tenant_id = '${home.tenant}'`;

const groupOf = (table: MovedTable) =>
  `(hashtextextended(row(${list(keyNames(table), 't.')})::text, 0) & ${GROUPS - 1})::integer`;

/**
 * How many rows each table has, and sums over their content that do not depend on the order. In a transaction.
 * @throws TenantryError `move_refused` when a row of another tenant is among them
 */
export async function digest(side: Side, tables: readonly MovedTable[]): Promise<Map<MovedTable, Digest>> {
  const digests = new Map<MovedTable, Digest>();
  for (const table of tables) {
    const { rows } = await side.connection.query<Group>(
      `select ${groupOf(table)} as "group", count(*) as rows, sum(${rowHash(table)}) as sum,
              count(*) filter (where t.tenant_id <> $1) as foreign
         from ${quote(table.name)} t ${own(side)} group by 1`,
      [side.home.tenant],
    );
    if (rows.some(({ foreign }) => foreign !== '0'))
      throw new TenantryError(
        'move_refused',
        `The table ${table.name} of this tenant holds rows of another tenant. Find out how they came there.`,
      );
    digests.set(table, {
      rows: rows.reduce((sum, { rows }) => sum + Number(rows), 0),
      groups: new Map(rows.map(({ group, rows, sum }) => [group, `${rows}/${sum}`])),
    });
  }
  return digests;
}

/**
 * @param source the digests of the source at the moment at which the target is
 * @throws TenantryError `move_differs`, with the keys of rows that differ
 */
export async function requireEqual(
  sides: { readonly source: Side; readonly target: Side; readonly tables: readonly MovedTable[] },
  source: ReadonlyMap<MovedTable, Digest>,
): Promise<void> {
  const target = await reading(sides.target, () => digest(sides.target, sides.tables));
  const found: Difference[] = [];
  for (const table of sides.tables) {
    const [here, there] = [source.get(table)!.groups, target.get(table)!.groups];
    const groups = [...new Set([...here.keys(), ...there.keys()])].filter(
      (group) => here.get(group) !== there.get(group),
    );
    if (groups.length > 0) found.push({ table: table.name, keys: await differingKeys(sides, table, groups) });
  }
  if (found.length > 0) throw differs(found);
}

interface Difference {
  readonly table: string;
  readonly keys: readonly string[];
}

export const differs = (found: readonly Difference[]) =>
  new TenantryError(
    'move_differs',
    `The target does not hold what the source does: ${found
      .map(
        ({ table, keys }) => `${table} ${keys.slice(0, NAMED).join(', ')}${keys.length > NAMED ? ', …' : ''}`,
      )
      .join('; ')}. The tenant stays where it is. Cancel the move, and look at these rows before the next.`,
  );

/** Row by row, as they are now: what has changed meanwhile in the source may be among them. */
async function differingKeys(
  { source, target }: { readonly source: Side; readonly target: Side },
  table: MovedTable,
  groups: readonly number[],
): Promise<string[]> {
  const read = (side: Side) =>
    reading(side, async () => {
      const where = own(side) === '' ? 'where' : `${own(side)} and`;
      const { rows } = await side.connection.query<{ key: string; hash: string }>(
        `select ${keyObject(table)} as key, ${rowHash(table)} as hash from ${quote(table.name)} t
          ${where} ${groupOf(table)} = any ($1) order by 1`,
        [groups.slice(0, NAMED)],
      );
      return new Map(rows.map(({ key, hash }) => [key, hash]));
    });
  const [here, there] = await Promise.all([read(source), read(target)]);
  return [...new Set([...here.keys(), ...there.keys()])]
    .filter((key) => here.get(key) !== there.get(key))
    .sort();
}
