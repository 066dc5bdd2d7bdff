import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leaseTargets, passOver, recordOutcomes } from '../../../functions/lib/catalog/migration-targets.ts';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import type { TestTenant, World } from '../../support/world.ts';
import { begin, ended, Fleet, migrate, migratorOf, notesColumns, request, step } from './migrate.support.ts';

/** What a ring's workers take, how much at once, and for how long. */
let world: World;
let more: readonly TestTenant[];
let fleet: Fleet;
const next = (...sql: string[]) => fleet.next('next', ...sql);

beforeAll(async () => {
  fleet = await Fleet.start();
  ({ world, more } = fleet);
});
afterAll(() => world?.close());

const inCatalog = <T>(work: (catalog: ControlConnection) => Promise<T>) =>
  world.asProvisioner('catalog', work);
const query = (text: string, values: unknown[] = []) =>
  inCatalog(async (catalog) => (await catalog.query(text, values)).rows);
/** All of them in one ring, but one home of each strategy. */
const allAtOnce = request({ percent: 0 });
/** How many homes ended together. */
const batches = async (operation: string) =>
  (
    await query(
      "select count(*)::integer as homes from catalog.migration_targets where operation_id = $1 and kind = 'home' group by finished_at",
      [operation],
    )
  ).map(({ homes }) => homes as number);
/** So many times as fast. */
const clockOf = (factor: number) => {
  const begun = Date.now();
  return () => begun + (Date.now() - begun) * factor;
};

describe('a batch', () => {
  it('is large where homes are quick, and small where each takes long', async () => {
    const quick = await migrate(world, next('select 1'), allAtOnce, { workers: 1 });
    expect(quick.state).toBe('done');
    expect(Math.max(...(await batches(quick.operation)))).toBeGreaterThan(4);
    // 10 s each, and more: three of them in half a minute.
    const slow = await migrate(world, next('select pg_sleep(0.1)'), allAtOnce, {
      workers: 1,
      clock: clockOf(100),
    });
    expect([slow.outcome.status, slow.state]).toEqual(['SUCCEEDED', 'done']);
    expect(slow.targets.map(({ state }) => state)).toEqual(slow.targets.map(() => 'done'));
    expect(Math.max(...(await batches(slow.operation)))).toBeLessThanOrEqual(3);
  });

  it('that takes too long goes on one by one, and the home that takes too long alone is named', async () => {
    const { schema } = more[2]!.home;
    // A migration has no way to shorten its own time but this one.
    const wanted = next(
      `select set_config('transaction_timeout', '0', true), set_config('transaction_timeout', '300', true) where current_schema() = '${schema}';
       select pg_sleep(2) where current_schema() = '${schema}'`,
    );
    const { state, targets } = await migrate(world, wanted, request({ percent: 0, tolerated: 1 }));
    expect(state).toBe('done');
    expect(targets.filter(({ state }) => state !== 'done')).toMatchObject([
      {
        slug: more[2]!.slug,
        state: 'quarantined',
        reason: expect.stringMatching(
          new RegExp(`^${fleet.number}-next.sql takes longer than a function has for it .*several files`),
        ),
      },
    ]);
    // Mended by hand, for the tests that follow.
    const { name, checksum } = wanted.home.at(-1)!;
    await world.asProvisioner(more[2]!, (connection) =>
      connection.query(
        `begin; set local role tenancy_owner; insert into ${schema}._migrations (name, checksum) values ('${name}', '${checksum}'); commit`,
      ),
    );
  });

  it('of one home goes on with the next file in another invocation', async () => {
    const slow = "select pg_sleep(1) where current_schema() = 'shared'";
    const wanted = next(slow, slow, slow, slow);
    let asked = 0;
    const left: unknown[] = [];
    // Its turn of five minutes lasts two seconds.
    const operation = await begin(world, wanted, allAtOnce);
    const migrator = migratorOf(world, wanted, { workers: 1, clock: clockOf(150) });
    await step(migrator, { operation, step: 'plan', input: {} });
    for (;;) {
      const { ring } = (await step(migrator, { operation, step: 'nextRing', input: {} })) as { ring: number };
      if (ring < 0) break;
      for (let more = true; more; ) {
        if (ring === 5) asked += 1;
        const event = { operation, step: 'work', input: { slot: 0, ring } };
        ({ more } = (await step(migrator, event)) as { more: boolean });
        const of = "operation_id = $1 and kind = 'shared' and state = 'pending' and cardinality(applied) > 0";
        left.push(...(await query(`select applied from catalog.migration_targets where ${of}`, [operation])));
      }
      await step(migrator, { operation, step: 'gate', input: { ring } });
    }
    await step(migrator, { operation, step: 'finish', input: {} });
    expect(asked).toBeGreaterThan(1);
    // An invocation ends between its files, not after the last.
    expect(left.length).toBeGreaterThan(0);
    expect((await ended(world, operation)).targets.at(-1)).toMatchObject({
      kind: 'shared',
      state: 'done',
      applied: [3, 2, 1, 0].map((back) => `${fleet.number - back}-next.sql`),
    });
  });
});

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
          // But what another one is just taking: until that has committed it is pending still.
          const { rows } = await catalog.query(
            "select from catalog.migration_targets where operation_id = $1 and state = 'pending' for update skip locked",
            [operation],
          );
          return { taken, left: rows.length };
        }
      });
    const ended = await Promise.all([0, 1, 2, 3].map(worker));
    expect(ended.map(({ left }) => left)).toEqual([0, 0, 0, 0]);
    expect(ended.reduce((sum, { taken }) => sum + taken, 0)).toBe(40);
    await query("update catalog.operations set state = 'done' where operation_id = $1", [operation]);
    await query("update catalog.tenants set status = 'failed' where slug like 'many-x%'");
  });

  it('take nothing of a run that has ended, and nobody who leaves or is moved; a failure there is none', async () => {
    const wanted = next('select 1');
    const operation = await begin(world, wanted, allAtOnce);
    await step(migratorOf(world, wanted), { operation, step: 'plan', input: {} });
    const [leaving, moving, failing] = more as [TestTenant, TestTenant, TestTenant];
    const lease = randomUUID();
    const take = async () => {
      const taken = await inCatalog((catalog) =>
        leaseTargets(catalog, { operationId: operation, ring: 3, slot: 0, lease, size: 100 }),
      );
      return taken.map(({ targetId }) => targetId);
    };
    const become = (tenant: TestTenant, status: string) =>
      query(
        `update catalog.tenants set status = $2, removal_begun_at = case $2 when 'offboarding' then now() end where tenant_id = $1`,
        [tenant.id, status],
      );
    await query("update catalog.migration_targets set ring = 3, place = 'x' where operation_id = $1", [
      operation,
    ]);

    await query("update catalog.operations set state = 'failed' where operation_id = $1", [operation]);
    expect(await take()).toEqual([]);
    const move = randomUUID();
    await query(
      "insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest) values ($1, 'move', $2, '{}', 'x')",
      [move, moving.id],
    );
    await query("update catalog.operations set state = 'running' where operation_id = $1", [operation]);
    await become(leaving, 'offboarding');
    const taken = await take();
    expect(taken).toContain(failing.home.homeId);
    for (const { home } of [leaving, moving]) expect(taken).not.toContain(home.homeId);

    await become(failing, 'offboarding');
    const failed = {
      targetId: failing.home.homeId,
      state: 'quarantined',
      applied: [],
      reason: 'no such schema',
    } as const;
    await inCatalog((catalog) => recordOutcomes(catalog, operation, lease, [failed]));
    await inCatalog((catalog) => passOver(catalog, operation));
    const { targets } = await ended(world, operation);
    const found = ({ slug }: TestTenant) => targets.find((target) => target.slug === slug);
    expect(found(leaving)).toMatchObject({ state: 'gone', reason: null });
    expect(found(failing)).toMatchObject({ state: 'gone' });
    expect(found(moving)).toMatchObject({ state: 'moving', reason: expect.stringContaining('moved') });

    await query("update catalog.operations set state = 'failed' where operation_id = any ($1)", [
      [operation, move],
    ]);
    for (const tenant of [leaving, failing]) await become(tenant, 'active');
    expect((await migrate(world, wanted)).state).toBe('done');
  });

  it('have ended what they are at when their run has', async () => {
    const wanted = next('select pg_sleep(0.7); alter table notes add column late text');
    const operation = await begin(world, wanted, request({ canaries: [more[0]!.slug] }));
    const migrator = migratorOf(world, wanted);
    await step(migrator, { operation, step: 'plan', input: {} });
    const working = step(migrator, { operation, step: 'work', input: { slot: 0, ring: 0 } });
    await expect
      .poll(() =>
        query("select from catalog.migration_targets where operation_id = $1 and state = 'leased'", [
          operation,
        ]),
      )
      .toHaveLength(1);
    await step(migrator, { operation, step: 'halt', input: { failedStep: 'work' } });
    expect(await ended(world, operation)).toMatchObject({ state: 'failed' });
    expect(await notesColumns(world, more[0]!)).toContain('late');
    await working;
  });
});
