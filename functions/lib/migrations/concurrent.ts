import { setTimeout } from 'node:timers/promises';
import { type ControlConnection, inTransaction, literal } from '../database/connect.ts';
import { type Home, isolations } from '../isolation/isolation.ts';
import { UnprotectedHomeError } from './apply.ts';
import type { ConcurrentStatement } from './concurrent-statement.ts';
import { type History, lockHistories, pendingOf } from './history.ts';
import type { MigrationFile } from './migration-file.ts';
import { inReference } from './reference.ts';
import { refused } from './refused.ts';
import type { MigrationTarget } from './script.ts';

/** ms. It waits for transactions that are older than it, and nobody waits for it: longer than a lock of DDL may take. */
const lockTimeout = 60_000;

/**
 * As tenancy_provisioner, on a direct connection: runs one statement that knows no transaction, in its turn.
 * A run that died left its mark in `_migrations` and perhaps an invalid index: the next one drops that and begins anew.
 * @returns false when the home has it already
 * @throws TenantryError `migration_refused`; PostgreSQL's own error. Nothing of it is left
 */
export async function applyConcurrently(
  connection: ControlConnection,
  target: MigrationTarget,
  file: MigrationFile & { readonly concurrent: ConcurrentStatement },
  /** ms. */
  statementTimeout: number,
): Promise<boolean> {
  const { home } = target;
  const { concurrent: statement } = file;
  const mark = `"${home.schema}"._migrations`;
  // How its text is read must not be what a file before it has left in the session.
  await connection.query(
    `reset all; set lock_timeout = ${lockTimeout}; set statement_timeout = ${statementTimeout}; set role tenancy_owner; set search_path = "${home.schema}", extensions, pg_temp`,
  );
  try {
    const history = await takeTurn(connection, home, file);
    if (pendingOf(history, [file]).length === 0) return false;
    // First: what is wrong with the home already would be found after it too, and an index over a large table be for nothing.
    await requireHarmless();
    if (history.has(file.name)) {
      if (await wasFinished(connection, statement)) return await done();
      await clean(connection, statement);
    } else
      await connection.query(`insert into ${mark} (name, checksum, applied_at) values ($1, $2, 'infinity')`, [
        file.name,
        file.checksum,
      ]);
    let isMade = false;
    try {
      await connection.query(statement.sql);
      isMade = statement.verb === 'create';
      await requireSound();
    } catch (error) {
      // When the connection is gone the mark stays, and the next run cleans up. Else it has a time of its own.
      await connection.query(`set statement_timeout = ${lockTimeout}`);
      if (isMade) await connection.query(`drop index concurrently if exists "${statement.name}"`);
      else await clean(connection, statement);
      await connection.query(`delete from ${mark} where name = $1`, [file.name]);
      throw error;
    }
    return await done();
  } finally {
    await connection.query('reset role; reset all').catch(() => {});
  }

  /**
   * An index is first made of an empty copy of its table, within the fence, and undone: its functions get everybody's values, past
   * row security, and what they have done with them by then would stay.
   */
  async function requireHarmless(): Promise<void> {
    const { table } = statement;
    if (table === undefined) return requireSound();
    await inReference(connection, target, async ({ home: { schema } }) => {
      await connection.query(
        `set local search_path = "${home.schema}", extensions, pg_temp; create table ${schema}."${table}" (like "${table}");
         set local search_path = ${schema}, "${home.schema}", extensions, pg_temp;
         call tenancy.run_statement(${literal(statement.sql.replace(/\bconcurrently\b/i, ''))})`,
      );
      await audit();
    });
  }

  function requireSound(): Promise<void> {
    return inTransaction(connection, audit);
  }

  async function audit(): Promise<void> {
    const findings = await isolations[home.strategy].check(connection, [home]);
    if (findings.length > 0) throw new UnprotectedHomeError(file.name, findings);
  }

  async function done(): Promise<true> {
    await connection.query(`update ${mark} set applied_at = now() where name = $1`, [file.name]);
    return true;
  }
}

/**
 * One session at a time works without a transaction in a home. A lock on a table ends with its transaction, and an advisory
 * lock anybody could hold. So the session takes a name (`application_name`), which goes with it. Whether another session of
 * this login has the name is looked up under the lock of the home's history.
 * @throws TenantryError `migration_refused` when another one does not end
 */
async function takeTurn(connection: ControlConnection, home: Home, file: MigrationFile): Promise<History> {
  const name = `tenancy.migrate ${home.schema}`;
  for (const until = Date.now() + lockTimeout; Date.now() < until; await setTimeout(250)) {
    const history = await inTransaction(connection, async () => {
      const histories = await lockHistories(connection, [home]);
      const { rows } = await connection.query(
        `select from pg_stat_activity where application_name = $1 and usename = session_user
            and datname = current_database() and pid <> pg_backend_pid()`,
        [name],
      );
      if (rows.length > 0) return undefined;
      await connection.query(`set application_name = '${name}'`);
      return histories.get(home.schema)!;
    });
    if (history !== undefined) return history;
  }
  throw refused(
    file.name,
    'waited in vain for another migrator of this home',
    'run it again when that has ended',
  );
}

/** Of a run that died: whether its statement had come to its end. */
async function wasFinished(
  connection: ControlConnection,
  { verb, name }: ConcurrentStatement,
): Promise<boolean> {
  if (verb === 'reindex') return false;
  const { rows } = await connection.query(
    'select indisvalid as valid from pg_index where indexrelid = to_regclass(quote_ident($1))',
    [name],
  );
  return verb === 'create' ? rows[0]?.valid === true : rows.length === 0;
}

/** Drops what a statement that failed has left: its own invalid index, or the copies that `reindex` works with. */
async function clean(connection: ControlConnection, { verb, of, name }: ConcurrentStatement): Promise<void> {
  if (verb === 'drop') return;
  const { rows } = await connection.query<{ index: string }>(
    `select i.indexrelid::regclass::text as index from pg_index i join pg_class c on c.oid = i.indexrelid
      where not i.indisvalid and case $1::text
        when 'create' then i.indexrelid = to_regclass(quote_ident($2))
        when 'table' then i.indrelid = to_regclass(quote_ident($2)) and c.relname ~ '_cc(new|old)\\d*$'
        else c.relnamespace = current_schema()::regnamespace and c.relname ~ ('^' || left($2, 50) || '.*_cc(new|old)\\d*$') end`,
    [verb === 'create' ? verb : of, name],
  );
  for (const { index } of rows) await connection.query(`drop index concurrently ${index}`);
}
