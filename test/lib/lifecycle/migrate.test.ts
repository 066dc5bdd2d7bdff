import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pinTenant, unpinTenant } from '../../../functions/lib/catalog/migration-pins.ts';
import { haltRun } from '../../../functions/lib/catalog/migration-runs.ts';
import { closeTenant } from '../../../functions/lib/catalog/offboarding.ts';
import { RetryableError, TenantryError } from '../../../functions/lib/errors.ts';
import { beginOffboarding } from '../../../functions/lib/lifecycle/offboard.ts';
import { resume, suspend } from '../../../functions/lib/lifecycle/suspend.ts';
import { newestState } from '../../../functions/lib/migrations/release.ts';
import { strategies, type TestTenant, type World } from '../../support/world.ts';
import {
  begin,
  ended,
  Fleet,
  file,
  migrate,
  migratorOf,
  notesColumns,
  request,
  run,
  versionOf,
} from './migrate.support.ts';

let world: World;
let more: readonly TestTenant[];
let fleet: Fleet;
const next = (name: string, sql: string) => fleet.next(name, sql);

beforeAll(async () => {
  fleet = await Fleet.start();
  ({ world, more } = fleet);
});
afterAll(() => world?.close());

const columns = (tenant: TestTenant) => notesColumns(world, tenant);
const everyone = () => [...strategies.flatMap((each) => Object.values(world.tenants[each])), ...more];

describe('a run', () => {
  it('brings every home of every strategy to the release, ring by ring, the shared tables last and once', async () => {
    const { outcome, state, targets } = await migrate(
      world,
      next('color', 'alter table notes add column color text'),
    );
    expect({ outcome: outcome.status, state }).toEqual({ outcome: 'SUCCEEDED', state: 'done' });
    for (const tenant of everyone()) expect(await columns(tenant)).toContain('color');
    // One canary of each strategy that has tables of its own; the shared tables are one target.
    expect(targets.filter(({ ring }) => ring === 0)).toHaveLength(2);
    expect(targets.at(-1)).toMatchObject({ kind: 'shared', ring: 5, state: 'done' });
    expect(targets).toHaveLength(2 + 2 + more.length + 1);
    expect(await versionOf(world, more[0]!)).toBe(`${fleet.number}-color`);
  });

  it('has nothing to do when it is run again', async () => {
    const { outcome, targets } = await migrate(world, fleet.release);
    expect([outcome.status, targets]).toEqual(['SUCCEEDED', []]);
  });

  it('reaches suspended tenants, and leaves the canary ring alone until its gate has been passed', async () => {
    await suspend(world.plane, more[1]!.id);
    const [canary] = more;
    const tried: string[] = [];
    const { state, reason, failedStep } = await migrate(
      world,
      next('gated', 'alter table notes add column gated text'),
      request({ canaries: [canary!.slug] }),
      {
        async probe(tenant) {
          tried.push(tenant);
          throw new Error('the tool answers nonsense');
        },
      },
    );
    expect([state, failedStep]).toEqual(['failed', 'gate']);
    expect(reason).toContain(`After the ring canary, ${canary!.slug}: the tool answers nonsense`);
    expect(tried).toEqual([canary!.id]);
    const having = await Promise.all(
      everyone().map(async (tenant) => (await columns(tenant)).includes('gated')),
    );
    expect(having.filter(Boolean)).toHaveLength(1);
    // The next run goes on with what is left.
    const { state: then, targets } = await migrate(world, fleet.release);
    expect(then).toBe('done');
    expect(targets.map(({ slug }) => slug)).not.toContain(canary!.slug);
    expect(await columns(more[1]!)).toContain('gated');
    await resume(world.plane, more[1]!.id);
  });

  it('asks again at a gate where a tool could not be called', async () => {
    let calls = 0;
    const wanted = next('throttled', 'alter table notes add column throttled text');
    const { outcome } = await migrate(world, wanted, request(), {
      async probe() {
        calls += 1;
        if (calls === 1) throw new RetryableError('unavailable', 'The function could not be called.');
      },
    });
    expect(outcome.status).toBe('SUCCEEDED');
    expect(calls).toBeGreaterThan(1);
  });

  it('quarantines the one home that is broken, with its reason, and the rerun touches exactly that one', async () => {
    const broken = more[2]!;
    const spoil = (sql: string) =>
      world.asProvisioner(broken, async (connection) => {
        await connection.query(
          `begin; set local role tenancy_owner; set local search_path = ${broken.home.schema}; ${sql}; commit`,
        );
      });
    await spoil('alter table notes add column size integer');
    const wanted = next('size', 'alter table notes add column size bigint');
    const first = await migrate(world, wanted, request({ tolerated: 1 }));
    expect(first.state).toBe('done');
    const quarantined = first.targets.filter(({ state }) => state === 'quarantined');
    expect(quarantined).toMatchObject([{ slug: broken.slug, applied: [] }]);
    expect(quarantined[0]!.reason).toMatch(
      /9504-size.sql failed: column "size" .* already exists \(SQLSTATE 42701\)/,
    );
    expect(first.targets.filter(({ state }) => state === 'done')).toHaveLength(first.targets.length - 1);
    // It still serves.
    expect((await world.database(broken).query('select count(*)::int as n from notes')).rows).toEqual([
      { n: 0 },
    ]);

    await spoil('alter table notes drop column size');
    const second = await migrate(world, wanted);
    expect(second.targets).toMatchObject([{ slug: broken.slug, state: 'done', applied: ['9504-size.sql'] }]);
  });

  it('halts before it breaks more homes than are tolerated, and its report says which', async () => {
    // Where there are rows, or here: not in the empty home in which it is tried.
    const wanted = next(
      'broken',
      "select 1 / case when current_schema() like 'reference%' then 1 else 0 end",
    );
    const { outcome, state, reason, targets } = await migrate(
      world,
      wanted,
      request({ canaries: [more[0]!.slug] }),
    );
    expect([outcome.status, state]).toEqual(['FAILED', 'failed']);
    expect(reason).toContain(
      `1 home could not be migrated, 0 tolerated. ${more[0]!.slug}: ${fleet.number}-broken.sql failed: division by zero`,
    );
    expect(targets.filter(({ state }) => state !== 'pending')).toHaveLength(1);
    // Mended before anybody has it, it may be edited: no home got it.
    fleet.release = {
      ...wanted,
      home: [...wanted.home.slice(0, -1), file(`${fleet.number}-broken.sql`, 'select 1')],
    };
    expect((await migrate(world, fleet.release)).state).toBe('done');
  });

  it('is refused before the first home when a file was edited that some home has', async () => {
    const edited = {
      ...fleet.release,
      home: [...fleet.release.home.slice(0, -1), file(`${fleet.number}-broken.sql`, 'select 2')],
    };
    await expect(begin(world, edited)).rejects.toMatchObject({ code: 'migration_refused' });
    await expect(begin(world, edited)).rejects.toThrow(/restore it and add a new file/);
  });

  it('runs once at a time, and stops where the operator halts it', async () => {
    const wanted = next('halted', 'alter table notes add column halted text');
    const operation = await begin(world, wanted, request({ canaries: [more[0]!.slug] }));
    await expect(begin(world, wanted)).rejects.toMatchObject({ code: 'operation_running' });
    const { outcome } = await run(migratorOf(world, wanted), operation, async ({ step }) => {
      if (step === 'gate') await world.asProvisioner('catalog', (catalog) => haltRun(catalog, operation));
    });
    expect(outcome.status).toBe('FAILED');
    expect(await ended(world, operation)).toMatchObject({
      state: 'failed',
      reason: 'An operator has halted the run.',
    });
    expect((await migrate(world, wanted)).targets.map(({ slug }) => slug)).not.toContain(more[0]!.slug);
  });

  it('takes along a tenant in its grace period, so that it is where the fleet is when it is resumed', async () => {
    const { id, slug } = await world.addTenant('schema');
    const inCatalog = <T>(work: Parameters<typeof world.asProvisioner<T>>[1]) =>
      world.asProvisioner('catalog', work);
    await inCatalog(async (catalog) => {
      const request = { slug, graceSeconds: 86_400, exportTo: undefined };
      const { operationId } = await beginOffboarding(catalog, id, request);
      await closeTenant(catalog, id, operationId);
    });
    const wanted = next('grace', 'alter table notes add column grace text');
    const { targets } = await migrate(world, wanted);
    expect(targets.find((target) => target.slug === slug)).toMatchObject({ state: 'done' });
    await resume(world.plane, id);
    expect((await migrate(world, wanted)).targets).toEqual([]);
    // Once its removal has begun it is none of a run's.
    await inCatalog((catalog) =>
      catalog.query(
        "update catalog.tenants set status = 'offboarding', removal_begun_at = now() where tenant_id = $1",
        [id],
      ),
    );
    const later = await migrate(world, next('removal', 'alter table notes add column removal text'));
    expect(later.targets.map((target) => target.slug)).not.toContain(slug);
  });

  it('does not wait for a tenant that leaves meanwhile', async () => {
    const leaving = await world.addTenant('schema');
    const wanted = next('leaves', 'alter table notes add column leaves text');
    const operation = await begin(world, wanted, request({ canaries: [more[0]!.slug] }));
    const { outcome } = await run(migratorOf(world, wanted), operation, async ({ step }) => {
      if (step !== 'gate') return;
      await world.asProvisioner('catalog', (catalog) =>
        catalog.query(
          "update catalog.tenants set status = 'offboarding', removal_begun_at = now() where tenant_id = $1",
          [leaving.id],
        ),
      );
    });
    expect(outcome.status).toBe('SUCCEEDED');
    const { targets } = await ended(world, operation);
    expect(targets.filter(({ state }) => state !== 'done')).toMatchObject([
      { slug: leaving.slug, state: 'gone' },
    ]);
  });

  it('goes only as far as it is told', async () => {
    next('early', 'alter table notes add column early text');
    const early = fleet.number;
    const wanted = next('late', 'alter table notes add column late text');
    await migrate(world, wanted, request({ version: String(early) }));
    expect(await columns(more[3]!)).toContain('early');
    expect(await columns(more[3]!)).not.toContain('late');
    expect(await versionOf(world, more[3]!)).toBe(`${early}-early`);
    await migrate(world, wanted);
    expect(await columns(more[3]!)).toContain('late');
  });

  it('looks at all of a home that it does not know, and of one that it knows at what its migrations change', async () => {
    const planted = more[5]!;
    const plant = (sql: string) =>
      world.asProvisioner(planted, (connection) =>
        connection.query(`begin; set local role tenancy_owner; ${sql}; commit`),
      );
    await plant(`grant truncate on ${planted.home.schema}.notes to ${planted.home.login}`);
    const wanted = next(
      'kept',
      'create table kept (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id))',
    );
    expect((await migrate(world, wanted)).state).toBe('done');
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query('update catalog.homes set schema_digest = null where home_id = $1', [
        planted.home.homeId,
      ]),
    );
    const refused = await migrate(world, wanted, request({ tolerated: 1 }));
    expect(refused.targets).toMatchObject([
      { slug: planted.slug, state: 'quarantined', reason: expect.stringContaining('TRUNCATE is granted') },
    ]);
    await plant(`revoke truncate on ${planted.home.schema}.notes from ${planted.home.login}`);
    expect((await migrate(world, wanted)).targets).toMatchObject([{ slug: planted.slug, state: 'done' }]);
  });

  it('tries a tenant at a gate again before it halts for it, and not for ever', async () => {
    let calls = 0;
    const failing = (times: number) => ({
      async probe() {
        calls += 1;
        if (calls <= times) throw new TenantryError('probe_failed', 'Try again in 2 s.');
      },
    });
    const wanted = next('busy', 'alter table notes add column busy text');
    const { state, reason } = await migrate(world, wanted, request(), failing(3));
    expect([state, reason, calls]).toEqual(['failed', expect.stringContaining('Try again in 2 s.'), 3]);
    calls = 0;
    expect((await migrate(world, wanted, request(), failing(2))).state).toBe('done');
  });
});

describe('a pin', () => {
  const pin = (tenant: TestTenant, version: string, until = new Date(Date.now() + 86_400_000)) =>
    world.asProvisioner('catalog', (catalog) =>
      pinTenant(catalog, tenant.id, { version, reason: 'their audit', until }),
    );

  it('holds a tenant back, is reported, and lets it follow when it has ended', async () => {
    const [held] = more;
    await pin(held!, newestState(fleet.release).version);
    const wanted = next('pinned', 'alter table notes add column pinned text');
    const { state, targets } = await migrate(world, wanted);
    expect(state).toBe('done');
    expect(targets.find(({ slug }) => slug === held!.slug)).toMatchObject({
      state: 'pinned',
      reason: expect.stringContaining('their audit'),
    });
    expect(await columns(held!)).not.toContain('pinned');
    expect(await columns(more[1]!)).toContain('pinned');

    await pin(held!, newestState(fleet.release).version, new Date(Date.now() - 1_000));
    expect((await migrate(world, wanted)).targets).toMatchObject([{ slug: held!.slug, state: 'done' }]);
    await world.asProvisioner('catalog', (catalog) => unpinTenant(catalog, held!.id));
  });

  it('moves a tenant up to its version and no further', async () => {
    const held = more[4]!;
    next('up-to', 'alter table notes add column up_to text');
    await pin(held, `${fleet.number}-up-to`);
    const wanted = next('beyond', 'alter table notes add column beyond text');
    expect((await migrate(world, wanted)).state).toBe('done');
    expect(await columns(held)).toContain('up_to');
    expect(await columns(held)).not.toContain('beyond');
    await world.asProvisioner('catalog', (catalog) => unpinTenant(catalog, held.id));
    expect((await migrate(world, wanted)).targets).toMatchObject([
      { slug: held.slug, version: `${fleet.number}-beyond` },
    ]);
  });
});
