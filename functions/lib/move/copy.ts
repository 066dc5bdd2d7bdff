import type { Sides } from './catch-up.ts';
import { keyNames, list } from './rows.ts';
import { quote, reading, writing } from './side.ts';
import { isStaged, landing, stagedName, stagingSchema } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** Rows of one range: each is a transaction of its own on both sides, and what a crash repeats. */
const RANGE_ROWS = 20_000;

/**
 * Copies all rows, range after range of each primary key, each in its own snapshot: no transaction lasts longer than one
 * range. What changes meanwhile is in the log.
 * @returns whether there is more to do
 */
export async function copyRows(sides: Sides, until: () => boolean): Promise<boolean> {
  for (const [index, table] of sides.tables.entries())
    while (!(await copyRange(sides, table, index))) if (until()) return true;
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
      const bound = await source.connection.query<{ upto: string }>(
        `select ${keyLiteral(table)} as upto from ${quote(table.name)} t ${range} order by ${list(keyNames(table), 't.')} offset ${RANGE_ROWS - 1} limit 1`,
        [],
      );
      const upto = bound.rows[0]?.upto;
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

const keyRow = (table: MovedTable) => `row(${list(keyNames(table), 't.')})`;

/** The row's key as PostgreSQL would read it in a statement: COPY takes no parameters. */
const keyLiteral = ({ key }: MovedTable) =>
  `concat('row(', ${key
    .map(({ name, type }) => `quote_literal(t.${quote(name)}::text), '::${type.replaceAll("'", "''")}'`)
    .join(`, ', ', `)}, ')')`;
