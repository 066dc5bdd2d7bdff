import { TenantryError } from '../errors.ts';

export function refused(file: string, what: string, remedy: string, cause?: unknown): TenantryError {
  return new TenantryError('migration_refused', `${file} ${what}: ${remedy}.`, { cause });
}
