import { isDeepStrictEqual } from 'node:util';
import { identifier } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import type { Sides } from './catch-up.ts';
import { Pace } from './pace.ts';
import { type Keys, keyNames, keyObject, list, rowHash } from './rows.ts';
import { reading, type Side } from './side.ts';
import type { MovedTable } from './tables.ts';

/** Keys named of each table: enough to look at. */
const NAMED = 10;
/** Rows fall into as many groups by their key: only groups that differ are looked at row by row, and of those so many that
 * no more rows than this are read, but one group at least. */
const GROUPS = 256;
const LOOKED_AT = 100_000;

interface Group {
  group: number;
  rows: string;
  sum: string;
  /** Of other tenants: there are none, or the move ends. */
  foreign: string;
}

export interface Digest {
  readonly rows: number;
  readonly groups: ReadonlyMap<number, { readonly rows: number; readonly sum: string }>;
}

/** Where the rows are all this tenant's, all of them are looked at; in shared tables only this tenant's are seen. */
const own = ({ home }: Side) =>
  isolations[home.strategy].ownsTables ? '' : `where t.tenant_id = '${home.tenant}'`;

const groupOf = (table: MovedTable) =>
  `(hashtextextended(row(${list(keyNames(table), 't.')})::text, 0) & ${GROUPS - 1})::integer`;

/** Asked before each table: throws when the work shall not go on. */
export type GoOn = () => Promise<void>;
export const always: GoOn = async () => {};

/**
 * How many rows each table has, and sums over their content that do not depend on the order. In a transaction.
 * @throws TenantryError `move_refused` when a row of another tenant is among them
 */
export async function digest(
  side: Side,
  tables: readonly MovedTable[],
  goOn = always,
): Promise<Map<MovedTable, Digest>> {
  const digests = new Map<MovedTable, Digest>();
  const pace = new Pace(side.connection);
  // All rows, even where keys are looked up in the same transaction.
  await side.connection.query(
    'set local enable_seqscan = on; set local enable_bitmapscan = on; set local max_parallel_workers_per_gather to default',
  );
  for (const table of tables) {
    await goOn();
    const { rows } = await pace.after(() =>
      side.connection.query<Group>(
        `select ${groupOf(table)} as "group", count(*) as rows, sum(${rowHash(table)}) as sum,
                count(*) filter (where t.tenant_id <> $1) as foreign
           from ${identifier(table.name)} t ${own(side)} group by 1`,
        [side.home.tenant],
      ),
    );
    if (rows.some(({ foreign }) => foreign !== '0'))
      throw new TenantryError(
        'move_refused',
        `The table ${table.name} of this tenant holds rows of another tenant. Find out how they came there.`,
      );
    digests.set(table, {
      rows: rows.reduce((sum, { rows }) => sum + Number(rows), 0),
      groups: new Map(rows.map(({ group, rows, sum }) => [group, { rows: Number(rows), sum }])),
    });
  }
  return digests;
}

/** Where the digests differ, the rows that do: as each side is now, so that what has changed since is among them. */
export async function suspects(
  sides: Pick<Sides, 'source' | 'target' | 'tables'>,
  source: ReadonlyMap<MovedTable, Digest>,
  goOn: GoOn,
): Promise<Keys> {
  const target = await reading(sides.target, () => digest(sides.target, sides.tables, goOn));
  const keys: Keys = new Map();
  for (const table of sides.tables) {
    const [here, there] = [source.get(table)!.groups, target.get(table)!.groups];
    const groups = [...new Set([...here.keys(), ...there.keys()])].filter(
      (group) => !isDeepStrictEqual(here.get(group), there.get(group)),
    );
    const sizeOf = (group: number) => Math.max(here.get(group)?.rows ?? 0, there.get(group)?.rows ?? 0);
    if (groups.length > 0) keys.set(table, await differingKeys(sides, table, some(groups, sizeOf)));
  }
  return keys;
}

/** The first groups that have as many rows as may be looked at, and one in any case. */
function some(groups: readonly number[], sizeOf: (group: number) => number): number[] {
  let rows = 0;
  return groups.filter((group, index) => {
    rows += sizeOf(group);
    return index === 0 || rows <= LOOKED_AT;
  });
}

/**
 * Each row under its own key too: one that was rewritten as an equal one, in other words, is found by the old words and not
 * under them.
 * @throws TenantryError `move_differs`, with the keys of rows that differ
 */
export function requireSame(
  keys: Keys,
  source: ReadonlyMap<MovedTable, ReadonlyMap<string, string>>,
  target: ReadonlyMap<MovedTable, ReadonlyMap<string, string>>,
): void {
  const found = [...keys].flatMap(([table, of]) => {
    const [here, there] = [source.get(table)!, target.get(table)!];
    const all = new Set([...of, ...here.keys(), ...there.keys()]);
    const differing = [...all].filter((key) => here.get(key) !== there.get(key)).sort();
    return differing.length > 0 ? [{ table: table.name, keys: differing }] : [];
  });
  if (found.length > 0) throw differs(found);
}

interface Difference {
  readonly table: string;
  readonly keys: readonly string[];
}

/** What an operator does about a difference: before the switch, or on the way back. */
export const stays = 'The tenant stays where it is. Cancel the move, and look at these rows before the next.';

/** Without keys: none of these differs when it is looked at by itself. */
export const differs = (found: readonly Difference[]) =>
  new TenantryError(
    'move_differs',
    `The two homes hold different rows: ${found
      .map(({ table, keys }) =>
        [table, keys.slice(0, NAMED).join(', ') + (keys.length > NAMED ? ', …' : '')].join(' ').trim(),
      )
      .join('; ')}. ${stays}`,
  );

async function differingKeys(
  { source, target }: { readonly source: Side; readonly target: Side },
  table: MovedTable,
  groups: readonly number[],
): Promise<Set<string>> {
  const read = (side: Side) =>
    reading(side, async () => {
      const where = own(side) === '' ? 'where' : `${own(side)} and`;
      const { rows } = await side.connection.query<{ key: string; hash: string }>(
        `select ${keyObject(table)} as key, ${rowHash(table)} as hash from ${identifier(table.name)} t
          ${where} ${groupOf(table)} = any ($1)`,
        [groups],
      );
      return new Map(rows.map(({ key, hash }) => [key, hash]));
    });
  const [here, there] = await Promise.all([read(source), read(target)]);
  return new Set([...here.keys(), ...there.keys()].filter((key) => here.get(key) !== there.get(key)));
}
