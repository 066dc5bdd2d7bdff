import { identifier, literal } from '../database/connect.ts';
import type { Sides } from './catch-up.ts';
import { Pace } from './pace.ts';
import { keyNames, list } from './rows.ts';
import { reading, type Side, writing } from './side.ts';
import { isStaged, landing, stagedName, stagingSchema } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** Rows of one range: each is a transaction of its own on both sides, and what a crash repeats. */
const RANGE_ROWS = 100_000;

/** By the key's own index, which has them in order: what the planner knows of a tenant may be that it has no rows. */
const inOrder =
  'set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off';
/** A crash of the server makes it forget how far the copy was: nothing of a range need reach the disk before the next. */
const unflushed = 'set local synchronous_commit = off';

/**
 * Copies all rows, range after range of each primary key, each in its own snapshot: no transaction lasts longer than one
 * range. What changes meanwhile is in the log.
 * @returns whether there is more to do
 */
export async function copyRows(
  sides: Sides,
  isOver: () => boolean,
  rangeRows = RANGE_ROWS,
): Promise<boolean> {
  const pace = new Pace(sides.source.connection);
  for (const [index, table] of sides.tables.entries())
    while (!(await pace.after(() => copyRange(sides, table, index, rangeRows)))) if (isOver()) return true;
  return false;
}

/** @returns true when the table's last row is there */
async function copyRange(
  { source, target }: Sides,
  table: MovedTable,
  index: number,
  rangeRows: number,
): Promise<boolean> {
  const progress = `${stagingSchema(target)}.progress`;
  const into = isStaged(target, table) ? stagedName(target, index) : identifier(table.name);
  const copyInto = `copy ${into} (${list(table.columns)}) from stdin`;
  const copied = async () => {
    const { rows } = await target.connection.query<{ upto: string | null; done: boolean }>(
      `select upto, done from ${progress} where table_name = $1`,
      [table.name],
    );
    if (rows[0]?.done) return true;
    // No trace of a copy: whatever is there is of one that a crash of the server has made forget.
    if (rows[0] === undefined) await target.connection.query(`truncate ${into}`);
    const range = rangeAfter(source, table, rows[0]?.upto ?? undefined, rangeRows);
    const { rowCount, lastLine } = await reading(
      source,
      () => source.connection.stream(`copy (${range}) to stdout`, target.connection, copyInto),
      inOrder,
    );
    // Where tenant_id alone is the key there is one row.
    const isRest = rowCount < rangeRows || restOfKey(table).length === 0;
    const upto = isRest ? null : keyOf(table, lastLine!);
    await target.connection.query(
      `insert into ${progress} (table_name, upto, done) values ($1, $2, $3)
       on conflict (table_name) do update set upto = excluded.upto, done = excluded.done`,
      [table.name, upto, isRest],
    );
    return isRest;
  };
  return writing(target, landing, copied, unflushed);
}

/** The next rows by their key. `after`: the key of the last that is there, as an expression. */
function rangeAfter({ home }: Side, table: MovedTable, after: string | undefined, rangeRows: number): string {
  const key = list(restOfKey(table), 't.');
  return `select ${list(table.columns, 't.')} from ${identifier(table.name)} t where t.tenant_id = '${home.tenant}'
    ${after === undefined ? '' : `and row(${key}) > ${after}`} ${key === '' ? '' : `order by ${key}`} limit ${rangeRows}`;
}

/** After tenant_id, which is the same in all rows: compared too, it would keep the index from finding where the range begins. */
const restOfKey = (table: MovedTable) => keyNames(table).slice(1);

/** The key in a line of COPY's text, as PostgreSQL reads it in a statement: COPY takes no parameters. */
function keyOf({ key, columns }: MovedTable, line: string): string {
  const values = line.split('\t');
  const parts = key
    .slice(1)
    .map(({ name, type }) => `${literal(unescaped(values[columns.indexOf(name)]!))}::${type}`);
  return `row(${parts.join(', ')})`;
}

const escapes: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };
const unescaped = (text: string) => text.replace(/\\(.)/g, (_, letter: string) => escapes[letter] ?? letter);
