import { RetryableError, TenantryError } from '../errors.ts';
import type { MigrationFile } from './migration-file.ts';

export function refused(file: string, what: string, remedy: string, cause?: unknown): TenantryError {
  return new TenantryError('migration_refused', `${file} ${what}: ${remedy}.`, { cause });
}

/** 55P03 lock_timeout, 40P01 deadlock, 53200 lock table full, XX000 tuple concurrently updated: another time it may work. */
const passing = ['55P03', '40P01', '40001', '53200', 'XX000'];
export const mayPass = (error: unknown): boolean => passing.includes(codeOf(error));

/** Its transaction did, and the session has ended with it. */
export const isTooLong = (error: unknown): boolean => codeOf(error) === '25P04';

/** Only what PostgreSQL said of a migration is that migration's fault. @throws RetryableError `unavailable` */
export function requireAnswer(error: unknown): void {
  if (error instanceof TenantryError && !(error instanceof RetryableError)) return;
  const code = codeOf(error);
  if (/^[0-9A-Z]{5}$/.test(code) && !/^(08|57P)/.test(code)) return;
  throw new RetryableError('unavailable', 'The database of these homes went away. Run it again.', 5, {
    cause: error,
  });
}

function codeOf(error: unknown): string {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? code : '';
}

const inParts = (file: MigrationFile | undefined) =>
  file?.concurrent === undefined
    ? 'do its work in several files, each a part of the rows'
    : 'give the server more while it runs, or make the index smaller';

/** The migration that a home could not take, and why. */
export function refusalOf(file: MigrationFile | undefined, error: unknown): Error {
  if (error instanceof TenantryError) return error;
  const [what, remedy] = meaningOf(file, error as DatabaseError);
  return refused(file?.name ?? 'Completing the home', what, remedy, error);
}

/** What PostgreSQL tells of an error, as far as it matters here. */
interface DatabaseError {
  readonly message: string;
  readonly code?: string;
  readonly column?: string;
}

function meaningOf(
  file: MigrationFile | undefined,
  { message, code, column }: DatabaseError,
): readonly [what: string, remedy: string] {
  switch (code) {
    case '55P03':
      return ['waited for a lock in vain', 'run it again when the tables are less busy'];
    case '57014':
      return ['has a statement that takes longer than a function has for it (8 minutes)', inParts(file)];
    case '25P04':
      return ['takes longer than a function has for it (9 minutes)', inParts(file)];
    case '23502':
      if (column !== 'tenant_id') break;
      return [
        `failed: ${message} (SQLSTATE 23502)`,
        'rows belong to a tenant: put what all may read into a file that begins with `-- shared`, in a table without tenant_id, or insert a row for each tenant, by `insert into … (tenant_id, …) select distinct tenant_id, … from` a table that has them',
      ];
  }
  return [`failed: ${message} (SQLSTATE ${code})`, 'correct it and run it again'];
}
