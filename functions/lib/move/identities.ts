import { literal } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import type { Sides } from './catch-up.ts';
import { reading, type Side, writing } from './side.ts';
import { landing } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** An identity column, and the sequence that it draws from on each side. */
export interface Identity {
  readonly name: string;
  readonly source: string;
  readonly target: string;
}

/**
 * The identity columns. Only what their sequences have come to is carried on, not the values in rows: such a one may come
 * from a tenant's own statement, and 2^63 − 1 would end the sequence that the target's other tenants draw from.
 * @throws TenantryError `move_refused` when one would leave the target's other tenants hardly any values
 */
export async function identitiesOf({ source, target, tables }: Sides): Promise<Identity[]> {
  const columns = tables.flatMap(({ name, identities }) => identities.map((column) => ({ name, column })));
  if (columns.length === 0) return [];
  const sequences = (side: Side) =>
    reading(side, async () => {
      const { rows } = await side.connection.query<{ sequence: string }>(
        'select pg_get_serial_sequence(quote_ident(c.name), c.col) as sequence from json_to_recordset($1) c(name text, col text)',
        [JSON.stringify(columns.map(({ name, column }) => ({ name, col: column })))],
      );
      return rows.map(({ sequence }) => sequence);
    });
  const [here, there] = [await sequences(source), await sequences(target)];
  if (!isolations[target.home.strategy].ownsTables) {
    const before = new Set(await reading(target, () => nearlyDrawn(target, tables)));
    requireRoom(
      (await reading(source, () => nearlyDrawn(source, tables))).filter((name) => !before.has(name)),
    );
  }
  return columns.map(({ name, column }, index) => ({
    name: `${name}.${column}`,
    source: here[index]!,
    target: there[index]!,
  }));
}

/** Of a sequence that others draw from so much has to be left: a tenth. */
const LEFT = 10;

/** The columns whose sequences have drawn nearly all their values: `table.column`. In a transaction. */
export async function nearlyDrawn(
  { connection }: Side,
  tables: readonly Pick<MovedTable, 'name' | 'identities'>[],
): Promise<string[]> {
  const found: string[] = [];
  for (const { name, identities } of tables)
    for (const column of identities) {
      const { rows: sequences } = await connection.query<{ sequence: string }>(
        'select pg_get_serial_sequence(quote_ident($1), $2) as sequence',
        [name, column],
      );
      const { sequence } = sequences[0]!;
      const { rows } = await connection.query(
        `select from ${sequence} s, pg_sequence q where q.seqrelid = $1::regclass
            and case when q.seqincrement > 0 then q.seqmax::numeric - s.last_value else s.last_value::numeric - q.seqmin end
                < (q.seqmax::numeric - q.seqmin) / ${LEFT}`,
        [sequence],
      );
      if (rows.length > 0) found.push(`${name}.${column}`);
    }
  return found;
}

/** @throws TenantryError `move_refused` when others in shared tables would be left with hardly any values of these columns */
export function requireRoom(columns: readonly string[]): void {
  if (columns.length > 0)
    throw new TenantryError(
      'move_refused',
      `Of ${columns.join(', ')} nearly all values are drawn, and in shared tables others go on from there. Give it a larger type by a migration, or move the tenant to a schema or a database of its own.`,
    );
}

/**
 * Steps beyond the source's that a sequence is set to which others draw from meanwhile: between the look at it and the
 * setting they draw fewer, so that it is never set back. A lock that a draw respects would wait for every transaction that
 * has drawn, and keep all others waiting.
 */
const AHEAD = 1_000;

/** The target's sequences go on after the source's. */
export async function carryIdentities(
  { source, target }: Sides,
  identities: readonly Identity[],
): Promise<void> {
  if (identities.length === 0) return;
  const { rows } = await reading(source, () =>
    source.connection.query<{ last: string }>(
      `select last from (${identities
        .map(
          (identity, index) => `select ${index} as place, last_value::text as last from ${identity.source}`,
        )
        .join(' union all ')}) s order by place`,
      [],
    ),
  );
  const ahead = isolations[target.home.strategy].ownsTables ? 0 : AHEAD;
  await writing(target, landing, () =>
    target.connection.query(
      identities.map((identity, index) => goingOn(identity, rows[index]!.last, ahead)).join(';'),
    ),
  );
}

/** Whichever way it counts; never further back than it is. */
const goingOn = ({ target }: Identity, last: string, ahead: number) =>
  `select setval(q.seqrelid, (case when q.seqincrement > 0
       then ${last} + floor(least(${ahead} * q.seqincrement::numeric, (q.seqmax::numeric - ${last}) / ${LEFT}))
       else ${last} - floor(least(${ahead} * -q.seqincrement::numeric, (${last} - q.seqmin::numeric) / ${LEFT})) end)::bigint)
     from ${target} s, pg_sequence q
    where q.seqrelid = ${literal(target)}::regclass
      and (not s.is_called or case when q.seqincrement > 0 then s.last_value < ${last} else s.last_value > ${last} end)`;
