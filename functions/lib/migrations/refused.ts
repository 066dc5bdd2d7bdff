import { RetryableError, TenantryError } from '../errors.ts';

export function refused(file: string, what: string, remedy: string, cause?: unknown): TenantryError {
  return new TenantryError('migration_refused', `${file} ${what}: ${remedy}.`, { cause });
}

/** One refusal that says all of these. */
export const allOf = (faults: readonly TenantryError[]): TenantryError =>
  faults.length === 1
    ? faults[0]!
    : new TenantryError('migration_refused', faults.map(({ message }) => message).join('\n'));

export function requireNone(faults: readonly TenantryError[]): void {
  if (faults.length > 0) throw allOf(faults);
}

export const temporary =
  'use `with … as` within one statement, or a table of the home, with tenant_id, that the file drops at its end';
export const extensionsSetting = 'the setting `extensions` (`tenantry` in cdk.json; start or deploy anew)';
/** Where a file's last statement has ended. */
export const atEnd = ', at its end';
export const unqualified =
  'write names without a schema: each home has one of its own, and extensions are on its path';

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
