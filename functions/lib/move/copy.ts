import type { Sides } from './catch-up.ts';
import { Pace } from './pace.ts';
import { keyNames, list } from './rows.ts';
import { quote, reading, type Side, writing } from './side.ts';
import { isStaged, landing, stagedName, stagingSchema } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** Rows of one range: each is a transaction of its own on both sides, and what a crash repeats. */
const RANGE_ROWS = 50_000;

/**
 * Copies all rows, range after range of each primary key, each in its own snapshot: no transaction lasts longer than one
 * range. What changes meanwhile is in the log.
 * @returns whether there is more to do
 */
export async function copyRows(sides: Sides, until: () => boolean): Promise<boolean> {
  const pace = new Pace(sides.source.connection);
  for (const [index, table] of sides.tables.entries())
    while (!(await pace.after(() => copyRange(sides, table, index)))) if (until()) return true;
  return false;
}

/** @returns true when the table's last row is there */
async function copyRange({ source, target }: Sides, table: MovedTable, index: number): Promise<boolean> {
  const progress = `${stagingSchema(target)}.progress`;
  const into = isStaged(target, table) ? stagedName(target, index) : quote(table.name);
  const columns = list(table.columns);
  return writing(target, landing, async () => {
    const { rows } = await target.connection.query<{ upto: string | null; done: boolean }>(
      `select upto, done from ${progress} where table_name = $1`,
      [table.name],
    );
    if (rows[0]?.done) return true;
    // No trace of a copy: whatever is there is of one that a crash of the server has made forget.
    if (rows[0] === undefined) await target.connection.query(`truncate ${into}`);
    const after = rows[0]?.upto ?? undefined;
    const upto = await reading(source, async () => {
      const range = `where t.tenant_id = '${source.home.tenant}' ${after === undefined ? '' : `and ${keyRow(table)} > ${after}`}`;
      const upto = await boundOf(source, table, range);
      await source.connection.stream(
        `copy (select ${list(table.columns, 't.')} from ${quote(table.name)} t ${range} ${upto === undefined ? '' : `and ${keyRow(table)} <= ${upto}`}) to stdout`,
        target.connection,
        `copy ${into} (${columns}) from stdin`,
      );
      return upto;
    });
    await target.connection.query(
      `insert into ${progress} (table_name, upto, done) values ($1, $2, $3)
       on conflict (table_name) do update set upto = excluded.upto, done = excluded.done`,
      [table.name, upto ?? null, upto === undefined],
    );
    return upto === undefined;
  });
}

/** The key of the range's last row; undefined: no more rows are left than belong to this one. */
async function boundOf({ connection }: Side, table: MovedTable, range: string): Promise<string | undefined> {
  const order = list(restOfKey(table), 't.');
  // A row a tenant.
  if (order === '') return undefined;
  // By the key's own index, which has them in order: what the planner knows of a tenant may be that it has no rows.
  await connection.query(
    'set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off',
  );
  const { rows } = await connection.query<{ upto: string }>(
    `select ${keyLiteral(table)} as upto from ${quote(table.name)} t ${range} order by ${order} offset ${RANGE_ROWS - 1} limit 1`,
    [],
  );
  await connection.query(
    'set local enable_seqscan = on; set local enable_bitmapscan = on; set local enable_sort = on',
  );
  return rows[0]?.upto;
}

/** After tenant_id, which is the same in all rows: compared too, it would keep the index from finding the range's begin. */
const restOfKey = (table: MovedTable) => keyNames(table).slice(1);

const keyRow = (table: MovedTable) => `row(${list(restOfKey(table), 't.')})`;

/** The row's key as PostgreSQL would read it in a statement: COPY takes no parameters. */
const keyLiteral = ({ key }: MovedTable) =>
  `concat('row(', ${key
    .slice(1)
    .map(({ name, type }) => `quote_literal(t.${quote(name)}::text), '::${type.replaceAll("'", "''")}'`)
    .join(`, ', ', `)}, ')')`;
