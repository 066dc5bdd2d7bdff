import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pinTenant } from '../../../functions/lib/catalog/migration-pins.ts';
import { previewTargets } from '../../../functions/lib/catalog/migration-plan.ts';
import { namedTargets } from '../../../functions/lib/catalog/migration-runs.ts';
import { parseMasterKeys } from '../../../functions/lib/isolation/context.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { plannedFor } from '../../../functions/lib/lifecycle/migrate.ts';
import { newestState, type Release } from '../../../functions/lib/migrations/release.ts';
import { onboard } from '../../../infra/local/onboard.ts';
import type { TestTenant, World } from '../../support/world.ts';
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
  step,
  versionOf,
} from './migrate.support.ts';

/** A run is of one release, and the functions that carry it out may hold another one. */
let world: World;
let more: readonly TestTenant[];
let fleet: Fleet;

beforeAll(async () => {
  fleet = await Fleet.start();
  ({ world, more } = fleet);
}, 120_000);
afterAll(() => world?.close());

describe('functions that hold different releases', () => {
  it('do not report a run as done that has changed nothing: they ask again, and say why', async () => {
    const old = fleet.release;
    const wanted = fleet.next('newer', 'alter table notes add column newer text');
    const operation = await begin(world, wanted);
    const { outcome } = await run(migratorOf(world, old), operation);
    expect(outcome.status).toBe('FAILED');
    expect(await ended(world, operation)).toMatchObject({
      state: 'failed',
      failedStep: 'plan',
      reason: expect.stringMatching(/9501-newer, .* another one \(it ends in 9000-notes\).*deployment/),
      targets: [],
    });
    expect(await notesColumns(world, more[0]!)).not.toContain('newer');

    // The deployment ends while the machine asks again.
    const again = await begin(world, wanted);
    let asked = 0;
    const late = migratorOf(world, old);
    const { outcome: then } = await run(late, again, () => {
      asked += 1;
      if (asked === 3) Object.assign(late, { release: wanted });
    });
    expect(then.status).toBe('SUCCEEDED');
    expect(await notesColumns(world, more[0]!)).toContain('newer');
  });

  it('bring homes as far as the run’s release and no further, where theirs only adds files to it', async () => {
    const wanted = fleet.next('this', 'alter table notes add column this text');
    const operation = await begin(world, wanted);
    const newer = fleet.next('next', 'alter table notes add column next text');
    expect((await run(migratorOf(world, newer), operation)).outcome.status).toBe('SUCCEEDED');
    expect(await notesColumns(world, more[0]!)).toContain('this');
    expect(await notesColumns(world, more[0]!)).not.toContain('next');
    expect((await migrate(world, newer)).state).toBe('done');
  });

  it('change no home with a worker of another runtime or of other keys', async () => {
    const wanted = fleet.next('worked', 'alter table notes add column worked text');
    const operation = await begin(world, wanted);
    await step(migratorOf(world, wanted), { operation, step: 'plan', input: {} });
    const other = migratorOf(world, { ...wanted, keys: [...wanted.keys, 'k2'] });
    await expect(step(other, { operation, step: 'work', input: { slot: 0, ring: 0 } })).rejects.toMatchObject(
      { name: 'Unavailable' },
    );
    expect((await run(migratorOf(world, wanted), operation)).outcome.status).toBe('SUCCEEDED');
  });
});

it('a pinned tenant gets another signing key, and no file', async () => {
  const held = world.tenants.database.a;
  const version = newestState(fleet.release).version;
  const until = new Date(Date.now() + 86_400_000);
  await world.asProvisioner('catalog', (catalog) =>
    pinTenant(catalog, held.id, { version, reason: 'their audit', until }),
  );
  const beyond = fleet.next('beyond', 'alter table notes add column beyond text');
  await migrate(world, beyond);
  const { keys } = JSON.parse(await world.secrets.read('tenancy/context-key')) as { keys: object };
  const both = parseMasterKeys(
    JSON.stringify({ current: 'k1', keys: { ...keys, k2: randomBytes(32).toString('base64') } }),
  );
  const keyed = { ...beyond, keys: ['k1', 'k2'] };
  const { state, targets } = await migrate(world, keyed, undefined, {
    plane: { ...world.plane, keys: both },
  });
  expect(state).toBe('done');
  expect(targets.find(({ slug }) => slug === held.slug)).toMatchObject({
    state: 'done',
    version,
    applied: [],
  });
  const known = await world.asProvisioner(held, (connection) =>
    asRole(connection, 'tenancy_keeper', () =>
      connection.query('select key_id from tenancy.keys order by key_id'),
    ),
  );
  expect(known.rows).toEqual([{ key_id: 'k1' }, { key_id: 'k2' }]);
  expect(await notesColumns(world, held)).not.toContain('beyond');
  // There is nothing more for it: the next run says that it is held.
  expect((await migrate(world, keyed)).targets).toMatchObject([{ slug: held.slug, state: 'pinned' }]);
});

it('a file that only provisioning has applied may not be edited either: no run, and no other tenant', async () => {
  const edited = fleet.release.home.map((each) =>
    each.name.startsWith('9000') ? file(each.name, `${each.sql} -- edited`) : each,
  );
  const release = { ...fleet.release, home: edited };
  const message = /^9000-notes.sql was edited after it was applied: restore it/;
  await expect(begin(world, release)).rejects.toThrow(message);
  for (const strategy of ['schema', 'database'] as const) {
    const { place } = world.tenants[strategy].a;
    const tenant = { slug: `late-${strategy}`, tier: 'pro', strategy } as const;
    await expect(onboard(world.plane, tenant, place, release)).rejects.toThrow(message);
  }
});

describe('what only the shared tables refuse', () => {
  const untouched = async () => {
    for (const tenant of [...more, world.tenants.database.a])
      expect(await notesColumns(world, tenant)).not.toContain('tried');
  };

  it.each([
    [
      'a row that is nobody’s',
      'insert into notes (body) values ($$seed$$)',
      /^95\d\d-refused.sql failed: rows of tenants are reached for none of them.*for each tenant.*`-- shared`/,
    ],
    [
      'a policy of its own',
      'create policy mine on notes using (true)',
      /^95\d\d-refused.sql would leave the home unprotected:\n {2}notes.mine: is a policy of its own.*drop it/,
    ],
  ])('is refused before the first home is changed: %s', async (_, sql, reason) => {
    const before = fleet.release;
    const wanted = fleet.next('refused', 'alter table notes add column tried text', sql, 'select 1');
    const { state, reason: told, failedStep, targets } = await migrate(world, wanted);
    expect([state, failedStep]).toEqual(['failed', 'plan']);
    expect(told).toMatch(reason);
    expect(told).toContain('strategy rls; no home was changed');
    expect(targets.filter(({ state }) => state !== 'pending' && state !== 'pinned')).toEqual([]);
    await untouched();
    fleet.release = before;
  });
});

describe('homes that have more than a run brings', () => {
  const planned = (release: Release, version?: string) =>
    world.asProvisioner('catalog', async (catalog) =>
      previewTargets(
        catalog,
        await plannedFor(catalog, release, request(version === undefined ? {} : { version })),
        50,
      ),
    );
  const versions = (targets: readonly { from: string | null; to: string }[]) =>
    new Set(targets.map(({ from, to }) => `${from} → ${to}`));

  it('are no targets of a run to an earlier version, and stay recorded as what they are', async () => {
    const before = newestState(fleet.release).version;
    const wanted = fleet.next('more', 'alter table notes add column more text');
    await migrate(world, wanted);
    const open = ({ targets }: { targets: readonly { pinned: string | null }[] }) =>
      targets.filter(({ pinned }) => pinned === null);
    expect(open(await planned(wanted, before))).toEqual([]);
    const { state, targets } = await migrate(world, wanted, request({ version: before }));
    expect([state, targets.filter(({ state }) => state !== 'pinned')]).toEqual(['done', []]);
    expect(await versionOf(world, more[0]!)).toBe(newestState(wanted).version);
  });

  it('keep what the release lacks: plan and run say so, and nothing is recorded as gone', async () => {
    const later = fleet.release;
    const has = newestState(later).version;
    const earlier = { ...later, home: later.home.slice(0, -1) };
    const says = `has ${has}, which this release lacks, and keeps it: no home goes back`;
    const ahead = (await planned(earlier)).targets.filter(({ from }) => from === has);
    expect(ahead.length).toBeGreaterThan(6);
    expect(versions(ahead)).toEqual(new Set([`${has} → ${has}`]));
    expect(new Set(ahead.map((target) => target.ahead))).toEqual(new Set([says]));
    const { state, operation, targets } = await migrate(world, earlier);
    expect([state, new Set(targets.map(({ state }) => state))]).toEqual([
      'done',
      new Set(['done', 'pinned']),
    ]);
    const named = await world.asProvisioner('catalog', (catalog) => namedTargets(catalog, operation, 50));
    expect(named.filter(({ state, reason }) => state === 'done' && reason === says)).toHaveLength(
      ahead.length,
    );
    expect(await versionOf(world, more[0]!)).toBe(has);
    expect(await notesColumns(world, more[0]!)).toContain('more');
    expect((await planned(earlier)).targets.filter(({ pinned }) => pinned === null)).toEqual([]);
    // The release with the file is back: they have it already.
    expect((await migrate(world, later)).state).toBe('done');
    expect((await planned(later)).targets.filter(({ pinned }) => pinned === null)).toEqual([]);
  });
});
