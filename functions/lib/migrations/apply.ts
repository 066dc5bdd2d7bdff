import { answersOf, type ControlConnection, identifier, literal } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { everyTenant, type MasterKeys, signContext } from '../isolation/context.ts';
import { asRole } from '../isolation/homes.ts';
import { type Finding, type Home, type Isolation, isolations } from '../isolation/isolation.ts';
import { lockHistories, makeHistory, pendingOf } from './history.ts';
import type { MigrationFile } from './migration-file.ts';
import type { Part } from './places.ts';
import { refused } from './refused.ts';

export interface MigrationTarget {
  readonly home: Home;
  /** For which the maintenance context is signed. */
  readonly databaseId: string;
  readonly keys: MasterKeys;
  /** All of it was completed and audited under the runtime of this release: what its migrations change is what is left to see to. */
  readonly isSound?: boolean;
}

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
  readonly now: () => number;
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
  { lockTimeout, statementTimeout, transactionTimeout, completesAll, countsLocks, now }: Application,
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
    if (touched.length > 0) await runFiles(connection, touched, now());
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
  await runFiles(connection, [{ target, files }], Date.now());
}

interface Pending {
  readonly target: MigrationTarget;
  readonly files: readonly MigrationFile[];
}

/**
 * One text for the whole batch: sent one by one, its statements would cost a round trip each. Where a file begins with
 * `-- shared`, one for each home and those of its files in a row that do, or don't: what one may do the other may not.
 * @throws PostgreSQL's own error, with where it was; UnprotectedHomeError; TenantryError `migration_refused`
 */
async function runFiles(
  connection: ControlConnection,
  pending: readonly Pending[],
  now: number,
): Promise<void> {
  if (!pending.some(({ files }) => files.some((file) => file.makesReferenceTables)))
    return runTogether(connection, pending, now);
  for (const { target, files } of pending)
    for (let from = 0, to: number; from < files.length; from = to) {
      const { makesReferenceTables } = files[from]!;
      const other = files.findIndex(
        (file, at) => at > from && file.makesReferenceTables !== makesReferenceTables,
      );
      to = other < 0 ? files.length : other;
      await runTogether(connection, [{ target, files: files.slice(from, to) }], now);
    }
}

/** Either all of these files begin with `-- shared`, or none. */
async function runTogether(
  connection: ControlConnection,
  pending: readonly Pending[],
  now: number,
): Promise<void> {
  const { script, parts } = scriptOf(pending, now);
  const names = new Set(parts.map(({ file }) => file));
  const file = names.size === 1 ? [...names][0]! : 'A file';
  const left = (cause?: unknown) =>
    refused(
      file,
      'left its transaction, role or schema, in a function or DO block',
      'leave transactions and roles to the migrator',
      cause,
    );
  const isShared = pending[0]?.files[0]?.makesReferenceTables === true;
  const homes = ['schema', 'login'].map(
    (column) =>
      `array[${pending.map(({ target }) => literal(target.home[column as 'schema' | 'login']))}]::name[]`,
  );
  const here = 'concat(pg_current_xact_id(), current_user) as here';
  const before = await connection.query<{ here: string; noted: object }>(
    `select ${here}, tenancy.note_tables(${homes}, ${isShared}) as noted`,
  );
  const { here: begun, noted } = before.rows[0]!;
  const findings = `(select coalesce(json_agg(f), '[]') from tenancy.audit_file(${homes}, ${literal(JSON.stringify(noted))}, ${isShared}) f) as findings`;
  const after = await connection
    .query<{ here: string; findings: Finding[] }>(`${script}select ${here}, ${findings}`)
    .catch(async (error) => {
      // Loaded when there is something to say.
      const { failedAt } = await import('./places.ts');
      const failed = failedAt(script, parts, error);
      // What the migrator adds to a file fails for no other reason than that it is not where it was.
      if (failed?.own !== true && ['42501', '42P01', '3F000'].includes(error.code)) throw left(error);
      throw Object.assign(error, { at: failed?.at });
    });
  if (after.rows[0]!.here !== begun) throw left();
  if (after.rows[0]!.findings.length > 0) throw new UnprotectedHomeError(file, after.rows[0]!.findings);
}

function scriptOf(pending: readonly Pending[], now: number): { script: string; parts: Part[] } {
  const parts: Part[] = [];
  let script = '';
  for (const { target, files } of pending)
    for (const file of files) {
      // Before each file: an earlier one may have changed them.
      script += `${settingsFor(target, file, now)}\n`;
      const from = script.length;
      script += `${fileScript(target.home, file)}\n`;
      parts.push({ file: file.name, sql: file.sql, from, end: script.length });
    }
  return { script, parts };
}

function settingsFor(
  { home, databaseId, keys }: MigrationTarget,
  { makesReferenceTables }: MigrationFile,
  now: number,
): string {
  const tenant = isolations[home.strategy].ownsTables ? home.tenant : everyTenant;
  // Without one, row security shows no tenant's rows: a file with `-- shared` has nothing to do with them.
  const context = makesReferenceTables
    ? ''
    : signContext(
        keys,
        { databaseId, tenant, epoch: home.epoch, mode: 'w', purpose: 'migrate', statementMs: 0 },
        now,
      );
  // Rows that a migration inserts into shared tables must say whose they are.
  const own = tenant === everyTenant ? '' : tenant;
  return `set local tenancy.context = '${context}'; set local tenancy.tenant = '${own}'; set local search_path = "${home.schema}", extensions, pg_temp;`;
}

const fileScript = (home: Home, { name, sql, sets, checksum, makesReferenceTables }: MigrationFile) =>
  // On a line of its own: the file may end in a comment. Constraints checked at the end are this file's too.
  `${sql}
;set constraints all immediate; ${sets.map((setting) => `reset ${setting};`).join(' ')}
${makesReferenceTables ? `select tenancy.protect_reference('${home.schema}', '${home.login}');` : ''}
insert into "${home.schema}"._migrations (name, checksum) values ('${name}', '${checksum}');`;

/** A migration that would leave something of a home unprotected. */
export class UnprotectedHomeError extends TenantryError {
  readonly file: string;
  readonly findings: readonly Finding[];
  constructor(file: string, findings: readonly Finding[]) {
    const lines = findings.map(({ object, finding, remedy }) => `  ${object}: ${finding}. ${remedy}.`);
    super('migration_refused', `${file} would leave the home unprotected:\n${lines.join('\n')}`);
    this.file = file;
    this.findings = findings;
  }
}
