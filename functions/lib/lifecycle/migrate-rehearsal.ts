import { type LeasedTarget, sampleTargets } from '../catalog/migration-targets.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { rehearse } from '../migrations/reference.ts';
import { filesUpTo } from '../migrations/release.ts';
import type { Migrator } from './migrate.ts';
import { openPlace, targetOf } from './migrate-work.ts';

/**
 * Before the first home is changed: tries what a run brings in an empty home of each strategy. The shared tables come last in a
 * run, and their rules are more: what only they refuse would be found when every other home has it.
 * @throws TenantryError `migration_refused`: file, object and remedy; RetryableError `unavailable`
 */
export async function rehearseRun(
  migrator: Migrator,
  catalog: ControlConnection,
  operationId: string,
): Promise<void> {
  for (const sample of await sampleTargets(catalog, operationId)) await rehearseOne(migrator, sample);
}

async function rehearseOne(migrator: Migrator, sample: LeasedTarget): Promise<void> {
  const { release, plane } = migrator;
  const files = filesUpTo(release, sample.version)!;
  const at = filesUpTo(release, sample.row.schema_version ?? '')?.length ?? 0;
  if (at >= files.length) return;
  const place = await openPlace(migrator, sample);
  // A tenant's own server that does not answer: the run goes on without it, and says so.
  if (place instanceof Error) return;
  const target = targetOf(sample, plane.keys, new Set());
  try {
    await rehearse(place.connection, target, { had: files.slice(0, at), fresh: files.slice(at) });
  } catch (error) {
    await place.close();
    if (!(error instanceof TenantryError) || error.code !== 'migration_refused') throw error;
    throw new TenantryError(
      'migration_refused',
      `${error.message}\nIt was tried in an empty home of the strategy ${target.home.strategy}; no home was changed.`,
      { cause: error },
    );
  }
  await place.release();
}
