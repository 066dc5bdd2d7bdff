import { answersOf, type ControlConnection, identifier, literal } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import { type Finding, type Home, type Isolation, isolations } from '../isolation/isolation.ts';
import { lockHistories, makeHistory, pendingOf } from './history.ts';
import type { MigrationFile } from './migration-file.ts';
import { refused } from './refused.ts';
import type { MigrationTarget, Pending } from './script.ts';

export interface Application {
  /** ms for each lock: whoever comes after a waiting migration waits as long. */
  readonly lockTimeout: number;
  /** ms for each statement. */
  readonly statementTimeout: number;
  /** ms for the whole of it. PostgreSQL then ends the session too: 25P04. */
  readonly transactionTimeout: number;
  /** Complete and audit the homes that lack no file too, unless they are sound: the runtime may have new rules. */
  readonly completesAll: boolean;
  readonly countsLocks: boolean;
  readonly clock: () => number;
}

/**
 * As tenancy_provisioner, in the homes' database: in one transaction, every home gets the files that it lacks, is
 * completed and audited. All of them, or none.
 * @returns the names of the files applied, by home id; `locks` that the transaction holds, where they are counted and it did something to each home
 * @throws UnprotectedHomeError; TenantryError `migration_refused`; PostgreSQL's own error
 */
export async function applyTogether(
  connection: ControlConnection,
  targets: readonly MigrationTarget[],
  files: readonly MigrationFile[],
  { lockTimeout, statementTimeout, transactionTimeout, completesAll, countsLocks, clock }: Application,
): Promise<{ applied: ReadonlyMap<string, string[]>; locks: number | undefined }> {
  const work = async () => {
    const histories = await lockHistories(
      connection,
      targets.map(({ home }) => home),
    );
    const pending = targets.map((target) => ({
      target,
      files: pendingOf(histories.get(target.home.schema)!, files),
    }));
    const touched = pending.filter(({ files }) => files.length > 0);
    const schemas = targets.map(({ home }) => home.schema);
    if (touched.length > 0) await runFiles(connection, touched, schemas, clock());
    const open = pending.filter(({ target }) => completesAll && target.isSound !== true);
    const changed = new Set([...touched, ...open]);
    const isWhole = countsLocks && changed.size === targets.length;
    const [findings, locks] = await answersOf([
      completed(connection, [...changed]),
      isWhole ? heldLocks(connection) : undefined,
    ]);
    if (findings.length > 0) throw new UnprotectedHomeError(files.at(-1)?.name ?? 'The runtime', findings);
    const names = pending.map(
      ({ target, files }) => [target.home.homeId, files.map(({ name }) => name)] as const,
    );
    return { applied: new Map(names), locks };
  };
  // How the next text is read must not be what a file before it has left in the session.
  const limits = `set local standard_conforming_strings = on; set local lock_timeout = ${lockTimeout}; set local statement_timeout = ${statementTimeout}; set local transaction_timeout = ${transactionTimeout}`;
  return asRole(connection, 'tenancy_owner', work, `begin; ${limits}`);
}

async function heldLocks(connection: ControlConnection): Promise<number> {
  const { rows } = await connection.query<{ locks: number }>(
    'select count(*)::integer as locks from pg_locks where pid = pg_backend_pid()',
  );
  return rows[0]!.locks;
}

async function completed(
  connection: ControlConnection,
  changed: readonly { target: MigrationTarget }[],
): Promise<Finding[]> {
  const groups = Map.groupBy(changed, ({ target }) => (target.isSound === true ? 'changed' : 'whole'));
  const found = [...groups].flatMap(([scope, group]) =>
    [...byIsolation(group)].map(([isolation, homes]) => isolation.complete(connection, homes, scope)),
  );
  return (await answersOf(found)).flat();
}

function byIsolation(pending: readonly { target: MigrationTarget }[]): Map<Isolation, Home[]> {
  const homes = pending.map(({ target }) => target.home);
  return Map.groupBy(homes, ({ strategy }) => isolations[strategy]);
}

/** In a transaction of the caller's, as tenancy_owner: these files in a schema that has none yet. */
export async function applyFiles(
  connection: ControlConnection,
  target: MigrationTarget,
  files: readonly MigrationFile[],
): Promise<void> {
  await connection.query(makeHistory(identifier(target.home.schema)));
  await runFiles(connection, [{ target, files }], [target.home.schema], Date.now());
}

/**
 * One text for the whole batch: sent one by one, its statements would cost a round trip each. Where a file begins with
 * `-- shared`, one for each home and those of its files in a row that do, or don't: what one may do the other may not.
 * @throws PostgreSQL's own error, with where it was; UnprotectedHomeError; TenantryError `migration_refused`
 */
async function runFiles(
  connection: ControlConnection,
  pending: readonly Pending[],
  /** Of all homes of the transaction. */
  schemas: readonly string[],
  now: number,
): Promise<void> {
  if (!pending.some(({ files }) => files.some((file) => file.makesReferenceTables)))
    return runTogether(connection, pending, schemas, now);
  for (const { target, files } of pending)
    for (let from = 0, to: number; from < files.length; from = to) {
      const { makesReferenceTables } = files[from]!;
      const other = files.findIndex(
        (file, at) => at > from && file.makesReferenceTables !== makesReferenceTables,
      );
      to = other < 0 ? files.length : other;
      await runTogether(connection, [{ target, files: files.slice(from, to) }], schemas, now);
    }
}

/** Either all of these files begin with `-- shared`, or none. */
async function runTogether(
  connection: ControlConnection,
  pending: readonly Pending[],
  schemas: readonly string[],
  now: number,
): Promise<void> {
  const { scriptOf } = await import('./script.ts');
  const steps = scriptOf(pending, now);
  const names = new Set(steps.map((step) => step.file));
  const file = names.size === 1 ? [...names][0]! : 'A file';
  const isShared = pending[0]?.files[0]?.makesReferenceTables === true;
  const listed = (own: readonly string[]) => `array[${own.map(literal)}]::name[]`;
  const homes = ['schema', 'login'].map((column) =>
    listed(pending.map(({ target }) => target.home[column as 'schema' | 'login'])),
  );
  const all = listed(schemas);
  const catches =
    steps.some(({ catches }) => catches) ||
    pending.some(({ files }) => files.some(({ sql }) => mayHide.test(sql)));
  const before = await connection.query<{ noted: object; elsewhere: string | null }>(
    `${catalogsBefore}; select tenancy.note_tables(${homes}, ${isShared}) as noted, tenancy.read_elsewhere(${all}, ${catches}) as elsewhere`,
  );
  const [{ noted, elsewhere }] = before.rows as [(typeof before.rows)[number]];
  const audits = `select * from tenancy.audit_traces(${all}) union all select * from tenancy.audit_elsewhere(${all}, ${elsewhere})
    union all select * from tenancy.audit_file(${homes}, ${literal(JSON.stringify(noted))}, ${isShared})`;
  // A path that a file has left could lead to functions of its own: those would run past the fence.
  const script = `${steps.map(({ sql }) => sql).join(';\n')};\nreset search_path; select coalesce(json_agg(f), '[]') as findings from (${audits}) f`;
  const after = await connection.query<{ findings: Finding[] }>(script).catch((error) => {
    const failed = steps[error.completed ?? 0];
    // What the migrator adds to a file fails for no other reason than that it is not where it was.
    if (failed?.at === undefined && ['42501', '42P01', '3F000'].includes(error.code))
      throw refused(
        file,
        'took its history or schema away, in a function or DO block',
        'leave schemas and `_migrations` to the migrator',
        error,
      );
    throw Object.assign(error, { at: failed?.at?.() });
  });
  if (after.rows[0]!.findings.length > 0) throw new UnprotectedHomeError(file, after.rows[0]!.findings);
}

/** A file that may catch errors, or change rights: by its text, or by one that it puts together (`execute`, escapes, a constant in two parts). */
const mayHide =
  /(?<!\braise[ \t]+)exception|\b(?:grant|revoke)\b|\bexecute\b(?!\s+(?:function|procedure)\b)|\b(?:e|u&)'|'[ \t\f\v]*(?:--[^\r\n]*)?[\r\n](?:\s|--[^\r\n]*[\r\n])*'/i;

/**
 * A cursor sees the catalogs as they were when it was opened, also what its own transaction deletes later: by it the audit finds whose a
 * dropped table was. The setting is read with its first row behind the one without a name.
 */
const catalogsBefore = `set local tenancy.locked = '{}|{}|{}';
  declare tenancy_before no scroll cursor for select 0::oid as namespace, null::name as name ${[
    ['pg_class', 'rel'],
    ['pg_proc', 'pro'],
    ['pg_type', 'typ'],
  ]
    .map(
      ([catalog, of], index) =>
        `union all select ${of}namespace, ${of}name from pg_catalog.${catalog} where oid = any (split_part(current_setting('tenancy.locked'), '|', ${index + 1})::oid[])`,
    )
    .join(' ')}`;

/** A migration that would leave something of a home unprotected. */
export class UnprotectedHomeError extends TenantryError {
  readonly file: string;
  readonly findings: readonly Finding[];
  constructor(file: string, findings: readonly Finding[]) {
    const groups = Map.groupBy(findings, ({ finding, remedy }) => `${finding}. ${remedy}.`);
    const lines = [...groups].map(([said, of]) => `  ${listed(of.map(({ object }) => object))}: ${said}`);
    super('migration_refused', `${file} would leave the home unprotected:\n${lines.join('\n')}`);
    this.file = file;
    this.findings = findings;
  }
}

/** Whoever brings a schema of a hundred tables lacks one thing in all of them. */
const most = 30;
const listed = (objects: readonly string[]): string =>
  objects.length <= most
    ? objects.join(', ')
    : `${objects.slice(0, most).join(', ')} and ${objects.length - most} more`;
