import { TenantryError } from '../errors.ts';
import type { Sides } from './catch-up.ts';
import { quote, reading, type Side, writing } from './side.ts';
import { landing } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** An identity column, and the sequence that it draws from on each side. */
export interface Identity {
  readonly name: string;
  readonly source: string;
  readonly target: string;
}

/**
 * The identity columns, after a look at what they hold: a value that nobody has drawn may come from a tenant's own
 * statement, and 2^63 − 1 would end the sequence that the target's other tenants draw from.
 * @throws TenantryError `move_refused` when one is beyond half of what its sequence can count to
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
  await reading(source, () => requirePlausible(source, tables));
  return columns.map(({ name, column }, index) => ({
    name: `${name}.${column}`,
    source: here[index]!,
    target: there[index]!,
  }));
}

/** In a transaction. @throws TenantryError `move_refused` when a value is beyond half of what its sequence can count to */
export async function requirePlausible(
  { connection, home }: Side,
  tables: readonly Pick<MovedTable, 'name' | 'identities'>[],
): Promise<void> {
  for (const { name, identities } of tables)
    for (const column of identities) {
      const { rows } = await connection.query<{ refused: boolean }>(
        `select coalesce(max(abs(t.${quote(column)}::numeric)) > (select seqmax / 2 from pg_sequence
                  where seqrelid = pg_get_serial_sequence(quote_ident($2), $3)::regclass), false) as refused
           from ${quote(name)} t where t.tenant_id = $1`,
        [home.tenant, name, column],
      );
      if (rows[0]!.refused)
        throw new TenantryError(
          'move_refused',
          `The column ${name}.${column} holds a value that its sequence can't have come to. Correct it before the move.`,
        );
    }
}

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
  await writing(target, landing, () =>
    target.connection.query(
      identities
        .map(
          (identity, index) =>
            `select setval('${identity.target.replaceAll("'", "''")}', ${rows[index]!.last}) from ${identity.target} where last_value < ${rows[index]!.last} or not is_called`,
        )
        .join(';'),
    ),
  );
}
