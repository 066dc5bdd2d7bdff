import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { strategies, type TestTenant, type World } from '../../support/world.ts';
import { begin, ended, Fleet, migratorOf, notesColumns, run, step } from './migrate.support.ts';
import { cutProvisioner } from './support.ts';

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

describe('whatever happens to a step', () => {
  it('twice, twice at once and after the end: every home gets its migration once', async () => {
    const wanted = next(
      'twice',
      'create table twice (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id))',
    );
    const operation = await begin(world, wanted);
    const migrator = migratorOf(world, wanted);
    const twice = async (event: { step: string; input: Record<string, unknown> }) => {
      const once = () => step(migrator, { operation, ...event });
      const [result] = await Promise.all([once(), once()]);
      await once();
      return result as { ring: number };
    };
    await twice({ step: 'plan', input: {} });
    for (;;) {
      const { ring } = await twice({ step: 'nextRing', input: {} });
      if (ring < 0) break;
      await Promise.all([0, 1, 2, 3].map((slot) => twice({ step: 'work', input: { slot, ring } })));
      await twice({ step: 'gate', input: { ring } });
    }
    await twice({ step: 'finish', input: {} });
    await step(migrator, { operation, step: 'halt', input: { failedStep: 'gate' } });
    const { state, targets } = await ended(world, operation);
    expect(state).toBe('done');
    expect(targets.map(({ state }) => state)).toEqual(targets.map(() => 'done'));
    for (const target of targets) expect(target.applied).toEqual([`${fleet.number}-twice.sql`]);
  });

  it.each(['plan', 'nextRing', 'work', 'gate', 'finish'])(
    'its backends are killed in %s: the machine goes on by itself',
    async (victim) => {
      // Long enough to be hit.
      const wanted = next(
        `killed-${victim.toLowerCase()}`,
        `select pg_sleep(0.05); alter table notes add column killed_${victim.toLowerCase()} text`,
      );
      const operation = await begin(world, wanted);
      const kills: Promise<unknown>[] = [];
      const { outcome } = await run(migratorOf(world, wanted), operation, ({ step }) => {
        if (step !== victim || kills.length === 2) return;
        const soon = new Promise((resolve) => setTimeout(resolve, 4 + kills.length * 20));
        kills.push(soon.then(() => cutProvisioner(world)));
      });
      await Promise.all(kills);
      expect(outcome.status).toBe('SUCCEEDED');
      const { targets } = await ended(world, operation);
      expect(targets.map(({ state }) => state)).toEqual(targets.map(() => 'done'));
      for (const tenant of everyone())
        expect(await columns(tenant)).toContain(`killed_${victim.toLowerCase()}`);
    },
  );

  it('PostgreSQL itself stops and comes back while the workers work', async () => {
    const wanted = next('restarted', 'select pg_sleep(0.02); alter table notes add column restarted text');
    const operation = await begin(world, wanted);
    let back: Promise<void> | undefined;
    const { outcome } = await run(migratorOf(world, wanted), operation, async ({ step }) => {
      // The machine's waits last a thousandth here, a server's start does not.
      if (back !== undefined) return back;
      if (step !== 'work') return;
      back = (async () => {
        await new Promise((resolve) => setTimeout(resolve, 30));
        await world.cluster.server.stop('immediate');
        await world.cluster.restart();
      })();
    });
    expect([outcome.status, await ended(world, operation)]).toEqual([
      'SUCCEEDED',
      expect.objectContaining({ state: 'done' }),
    ]);
    for (const tenant of everyone()) expect(await columns(tenant)).toContain('restarted');
  });

  it('its machine was stopped from outside: started once more, it says so, and the next run goes on', async () => {
    const wanted = next('stopped', 'alter table notes add column stopped text');
    const operation = await begin(world, wanted);
    await step(migratorOf(world, wanted), { operation, step: 'plan', input: {} });
    const failure = { Error: 'ExecutionEnded', Cause: '{"errorMessage":"was stopped"}' };
    await run(migratorOf(world, wanted), operation, () => {}, { failedStep: 'work', failure });
    expect(await ended(world, operation)).toMatchObject({
      state: 'failed',
      failedStep: 'work',
      reason: 'was stopped',
    });
    expect((await run(migratorOf(world, wanted), await begin(world, wanted))).outcome.status).toBe(
      'SUCCEEDED',
    );
  });

  it('the worker of a slot that the ring has no need of died with its targets: another one has them', async () => {
    const wanted = next('held', 'alter table notes add column held text');
    const operation = await begin(world, wanted);
    const migrator = migratorOf(world, wanted);
    const { leaseTargets } = await import('../../../functions/lib/catalog/migration-targets.ts');
    const asked: number[][] = [];
    let isTaken = false;
    const { outcome } = await run(migrator, operation, async ({ step: name, input }) => {
      if (name === 'work') asked.push([Number(input.ring), Number(input.slot)]);
      if (name !== 'nextRing' || isTaken) return;
      const { rows } = await world.asProvisioner('catalog', (catalog) =>
        catalog.query(
          "select ring from catalog.migration_targets where operation_id = $1 and state = 'pending' order by ring desc limit 1",
          [operation],
        ),
      );
      const taken = {
        operationId: operation,
        ring: rows[0]!.ring,
        slot: 3,
        lease: crypto.randomUUID(),
        size: 25,
      };
      await world.asProvisioner('catalog', (catalog) => leaseTargets(catalog, taken));
      isTaken = true;
    });
    expect(outcome.status).toBe('SUCCEEDED');
    expect((await ended(world, operation)).targets.map(({ state }) => state)).not.toContain('leased');
    // The shared tables are one target: one worker, and the slot that had it.
    expect(asked.filter(([ring]) => ring === 5).sort()).toEqual([
      [5, 0],
      [5, 3],
    ]);
    for (const tenant of everyone()) expect(await columns(tenant)).toContain('held');
  });

  it('a worker that was thought dead records nothing for homes that another one has taken', async () => {
    const wanted = next('late-worker', 'alter table notes add column late_worker text');
    const operation = await begin(world, wanted);
    const migrator = migratorOf(world, wanted);
    await step(migrator, { operation, step: 'plan', input: {} });
    const { leaseTargets, recordOutcomes } = await import(
      '../../../functions/lib/catalog/migration-targets.ts'
    );
    const stale = '00000000-0000-4000-8000-000000000001';
    await world.asProvisioner('catalog', async (catalog) => {
      const taken = await leaseTargets(catalog, {
        operationId: operation,
        ring: 0,
        slot: 0,
        lease: stale,
        size: 5,
      });
      expect(taken.length).toBeGreaterThan(0);
      const again = await leaseTargets(catalog, {
        operationId: operation,
        ring: 0,
        slot: 0,
        lease: '00000000-0000-4000-8000-000000000002',
        size: 5,
      });
      expect(again.map(({ targetId }) => targetId)).toEqual(taken.map(({ targetId }) => targetId));
      await recordOutcomes(
        catalog,
        operation,
        stale,
        taken.map(({ targetId }) => ({
          targetId,
          state: 'quarantined' as const,
          applied: [],
          reason: 'from the dead',
        })),
      );
    });
    const { outcome } = await run(migrator, operation);
    expect(outcome.status).toBe('SUCCEEDED');
    expect((await ended(world, operation)).targets.filter(({ reason }) => reason !== null)).toEqual([]);
  });
});
