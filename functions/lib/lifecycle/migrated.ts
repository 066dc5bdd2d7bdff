import { knownFiles, recordFiles, recordSchemaState } from '../catalog/migration-runs.ts';
import { answersOf, type ControlConnection } from '../database/connect.ts';
import { requireUnedited } from '../migrations/history.ts';
import type { MigrationFile } from '../migrations/migration-file.ts';
import { type Release, schemaStates } from '../migrations/release.ts';

/**
 * Before the first home gets anything: what a home's own history would say of it comes too late for those before it.
 * @throws TenantryError `migration_refused`: a file was edited after some home had got it
 */
export async function requireReleaseUnedited(
  catalog: ControlConnection,
  { home }: Pick<Release, 'home'>,
): Promise<void> {
  const known = await knownFiles(catalog);
  requireUnedited(home, (name) => known.get(name));
}

/** A home, or a shared cluster's tables, that got these files outside a run: from now on nobody may edit them. */
export async function recordMigrated(
  catalog: ControlConnection,
  of: Parameters<typeof recordSchemaState>[1],
  release: Release,
  files: readonly MigrationFile[] = release.home,
): Promise<void> {
  await answersOf([
    recordFiles(catalog, files),
    recordSchemaState(catalog, of, schemaStates(release)[files.length - 1]!),
  ]);
}
