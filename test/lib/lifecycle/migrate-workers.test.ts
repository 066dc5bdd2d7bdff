import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leaseTargets, recordOutcomes } from '../../../functions/lib/catalog/migration-targets.ts';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import { startWorld, type World } from '../../support/world.ts';

/** What a ring's workers take, how much at once, and for how long. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
}, 120_000);
afterAll(() => world?.close());

const inCatalog = <T>(work: (catalog: ControlConnection) => Promise<T>) =>
  world.asProvisioner('catalog', work);
const query = (text: string, values: unknown[] = []) =>
  inCatalog(async (catalog) => (await catalog.query(text, values)).rows);

describe('workers', () => {
  it('find something each, as long as there is anything, where every home has a database of its own', async () => {
    const operation = randomUUID();
    await query(
      `with operation as (insert into catalog.operations (operation_id, kind, input, request_digest) values ($1, 'migrate', '{}', 'x')),
            run as (insert into catalog.migration_runs (operation_id, version, digest, tolerated) values ($1, 'x', 'x', 0)),
            tenant as (insert into catalog.tenants (slug, tier, strategy, status)
                       select 'many-x' || n, 'pro', 'database', 'provisioning' from generate_series(1, 40) n returning tenant_id),
            home as (insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, state)
                     select gen_random_uuid(), tenant_id, $2, 'database', 'own', gen_random_uuid(), 'main', 'x', 'open' from tenant returning home_id)
       insert into catalog.migration_targets (operation_id, target_id, kind, ring, place, version, digest)
       select $1, home_id, 'home', 3, home_id, 'x', 'x' from home`,
      [operation, world.plane.catalog.clusterId],
    );
    await query(
      `update catalog.tenants t set home_id = h.home_id, status = 'active' from catalog.homes h where h.tenant_id = t.tenant_id and t.slug like 'many-x%'`,
    );
    const worker = (slot: number) =>
      inCatalog(async (catalog) => {
        const lease = randomUUID();
        for (let taken = 0; ; taken += 1) {
          const wanted = { operationId: operation, ring: 3, slot, lease, size: 25 };
          const [target] = await leaseTargets(catalog, wanted);
          if (target !== undefined) {
            const done = {
              targetId: target.targetId,
              state: 'done',
              applied: [],
              reason: undefined,
            } as const;
            await recordOutcomes(catalog, operation, lease, [done]);
            continue;
          }
          const { rows } = await catalog.query(
            "select count(*)::integer as left from catalog.migration_targets where operation_id = $1 and state = 'pending'",
            [operation],
          );
          return { taken, left: rows[0]!.left };
        }
      });
    const ended = await Promise.all([0, 1, 2, 3].map(worker));
    expect(ended.map(({ left }) => left)).toEqual([0, 0, 0, 0]);
    expect(ended.reduce((sum, { taken }) => sum + taken, 0)).toBe(40);
    await query("update catalog.operations set state = 'done' where operation_id = $1", [operation]);
    await query("update catalog.tenants set status = 'failed' where slug like 'many-x%'");
  });
});
