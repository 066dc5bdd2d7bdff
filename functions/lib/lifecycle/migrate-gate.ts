import { setTimeout } from 'node:timers/promises';
import { ringNames } from '../catalog/migration-plan.ts';
import {
  countQuarantined,
  type MigrationRun,
  namedTargets,
  tenantsToTry,
} from '../catalog/migration-runs.ts';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import type { Migrator } from './migrate.ts';

/** Of a ring: enough to see that a release does not work, few enough to be done in seconds. */
const tried = 20;

/** A server that is busy for a moment says nothing about a release: one tenant is tried so often, with a pause of so many ms. */
const attempts = 3;
const pauseMs = 2_000;

/**
 * Between two rings: counts what is broken, and calls a tool as some of the ring's tenants.
 * @throws TenantryError `migration_halted`: what went wrong, and where to look; RetryableError when a tool could not be called
 */
export async function gate(
  { probe }: Pick<Migrator, 'probe'>,
  catalog: ControlConnection,
  { operationId, tolerated, isHalted }: MigrationRun,
  ring: number,
): Promise<void> {
  if (isHalted) throw halted('An operator has halted the run.');
  const broken = await countQuarantined(catalog, operationId);
  if (broken > tolerated) {
    const [first] = await namedTargets(catalog, operationId, 1);
    throw halted(
      `${broken} ${broken === 1 ? 'home' : 'homes'} could not be migrated, ${tolerated} tolerated. ${first!.slug ?? 'The shared tables'}: ${first!.reason}`,
    );
  }
  for (const { tenant, slug } of await tenantsToTry(catalog, operationId, ring, tried)) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await probe(tenant);
        break;
      } catch (cause) {
        // Says nothing about the ring: the machine asks again.
        if (cause instanceof RetryableError) throw cause;
        if (!(cause instanceof TenantryError) || attempt === attempts)
          throw new TenantryError(
            'migration_halted',
            `After the ring ${ringNames[ring]}, ${slug}: ${(cause as Error).message}`,
            { cause },
          );
      }
      await setTimeout(pauseMs);
    }
  }
}

const halted = (message: string) => new TenantryError('migration_halted', message);
