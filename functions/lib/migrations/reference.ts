import { randomUUID } from 'node:crypto';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import { type Finding, type Home, isolations } from '../isolation/isolation.ts';
import { applyFiles, UnprotectedHomeError } from './apply.ts';
import type { MigrationFile } from './migration-file.ts';
import { isTooLong, requireAnswer, requireNone } from './refused.ts';
import type { MigrationTarget } from './script.ts';

class Made<T> extends Error {
  readonly result: T;
  constructor(result: T) {
    super('made only to be looked at');
    this.result = result;
  }
}

/**
 * As tenancy_provisioner, in the home's database: makes a home beside the others, empty and without tables, that nobody ever
 * sees: its transaction ends in a rollback, whatever `work` comes to.
 */
export async function inReference<T>(
  connection: ControlConnection,
  target: MigrationTarget,
  work: (reference: MigrationTarget) => Promise<T>,
  /** s, for all of it; PostgreSQL then ends the session too. */
  timeout?: number,
): Promise<T> {
  const schema = `reference_${randomUUID().replaceAll('-', '')}`;
  // A file that names tables of another schema waits for those.
  const limits = `set local lock_timeout = '3s'; set local statement_timeout = '2min'; set local transaction_timeout = '${timeout ?? 0}s'`;
  const made = async () => {
    await connection.query(`create schema ${schema}`);
    throw new Made(await work({ ...target, home: { ...target.home, schema } }));
  };
  try {
    return await asRole(connection, 'tenancy_owner', made, `begin; ${limits}`);
  } catch (error) {
    if (error instanceof Made) return error.result;
    throw error;
  }
}

/** On an empty table it makes no difference, but that it may stand in a transaction. */
export const withoutConcurrently = (file: MigrationFile): MigrationFile =>
  file.concurrent === undefined ? file : { ...file, sql: file.sql.replace(/\bconcurrently\b/i, '') };

/**
 * Tries files in a reference home before the first real one has them: what the rules of its strategy refuse is known by file
 * and object. What the files before them, or a home that has only those, comes to is for `drift` to tell.
 * @returns false when the files before them don't make a home any more
 * @throws TenantryError `migration_refused`
 */
export function rehearse(
  connection: ControlConnection,
  target: MigrationTarget,
  { had, fresh }: { readonly had: readonly MigrationFile[]; readonly fresh: readonly MigrationFile[] },
  timeout?: number,
): Promise<boolean> {
  const tried = async (reference: MigrationTarget) => {
    const { home } = reference;
    const complete = () => isolations[home.strategy].complete(connection, [home], 'whole');
    let known: readonly Finding[];
    try {
      await applyFiles(connection, reference, had.map(withoutConcurrently));
      known = await complete();
    } catch (error) {
      requireAnswer(error);
      // A hundred tables take longer than a plan has: that says nothing about the files.
      if (isTooLong(error)) throw await refusal(had.at(-1), error, home);
      return false;
    }
    /** The file after which each was found first: a later one may have mended it. */
    const causes = new Map(known.map((finding) => [keyOf(finding), '']));
    let found = known;
    for (const file of fresh) {
      try {
        await applyFiles(connection, reference, [withoutConcurrently(file)]);
        found = await complete();
      } catch (error) {
        requireAnswer(error);
        if (error instanceof UnprotectedHomeError) throw named(file.name, error.findings, home);
        throw await refusal(file, error, home);
      }
      for (const finding of found) if (!causes.has(keyOf(finding))) causes.set(keyOf(finding), file.name);
    }
    // Of all files: whoever brings a hundred mends them in one go.
    const unmended = Map.groupBy(found, (finding) => causes.get(keyOf(finding))!);
    unmended.delete('');
    requireNone([...unmended].map(([file, findings]) => named(file, findings, home)));
    return true;
  };
  return inReference(connection, target, tried, timeout);
}

/** Without the name of a schema that nobody has seen. */
const named = (file: string, findings: readonly Finding[], home: Home) =>
  new UnprotectedHomeError(
    file,
    findings.map((finding) => ({ ...finding, object: unqualifiedIn(finding.object, home) })),
  );

async function refusal(file: MigrationFile | undefined, error: unknown, home: Home): Promise<Error> {
  const { refusalOf } = await import('./refusal-of.ts');
  if (error instanceof Error && !(error instanceof TenantryError))
    error.message = unqualifiedIn(error.message, home);
  return refusalOf(file, error);
}

const unqualifiedIn = (text: string, { schema }: Home): string => text.replaceAll(`${schema}.`, '');

const keyOf = ({ object, finding }: Finding) => `${object} ${finding}`;
