import { isolations, sharedHome } from '../../../functions/lib/isolation/isolation.ts';
import type { MigrationFile } from '../../../functions/lib/migrations/migration-file.ts';
import { migrateHome } from '../../../functions/lib/migrations/migrator.ts';
import type { MigrationTarget } from '../../../functions/lib/migrations/script.ts';
import type { TestTenant, World } from '../../support/world.ts';

/** What a tenant's migrations change: the home that is its own, or the one that it shares. */
export const targetOf = ({ plane }: World, { strategy, home }: TestTenant): MigrationTarget => ({
  home: isolations[strategy].ownsTables ? home : sharedHome,
  databaseId: home.databaseId,
  keys: plane.keys,
});

export const migrate = (
  world: World,
  tenant: TestTenant,
  files: readonly MigrationFile[],
  more: Partial<MigrationTarget> = {},
): Promise<readonly string[]> =>
  world.asProvisioner(tenant, (connection) =>
    migrateHome(connection, { ...targetOf(world, tenant), ...more }, files),
  );
