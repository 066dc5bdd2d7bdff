import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { moveSteps } from '../../../functions/lib/lifecycle/move.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { driftOf } from '../../../functions/lib/migrations/drift.ts';
import { readHistory } from '../../../functions/lib/migrations/history.ts';
import { type MigrationFile, parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { onboard } from '../../../infra/local/onboard.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';
import { migrate as migrateAll } from '../lifecycle/migrate.support.ts';
import { atHome, begin, homeOf, moverOf } from '../lifecycle/move.support.ts';
import { migrate, targetOf } from './target.ts';

/** A file that homes have got and that no new home could get any more: its text is written anew, and says so. */
let world: World;
const old = parseMigration('9100-marks.sql', 'alter table notes add column mark text; select 1 / 1');
const anew = (sql: string) => parseMigration(old.name, `-- replaces ${old.checksum}\n${sql}`);
const same = anew('alter table notes add mark text');

beforeAll(async () => {
  world = await startWorld({ migrations: [old] });
});
afterAll(() => world?.close());

const releaseWith = (file: MigrationFile) => ({
  ...world.release,
  home: world.release.home.map((each) => (each.name === file.name ? file : each)),
});

describe.each(strategies)('%s', (strategy) => {
  const tenant = () => world.tenants[strategy].a;
  const drift = (file: MigrationFile) =>
    world.asProvisioner(tenant(), (connection) =>
      driftOf(connection, targetOf(world, tenant()), releaseWith(file).home, new Map()),
    );

  it('is refused without the line, told what to write, and taken with it', async () => {
    const silent = parseMigration(old.name, 'alter table notes add mark text');
    await expect(migrate(world, tenant(), releaseWith(silent).home)).rejects.toThrow(
      `9100-marks.sql was edited after it was applied: restore it and add a new file; or, when it makes the same as before and what it was can no longer be applied to a new home, begin it with \`-- replaces ${old.checksum}\`.`,
    );
    const foreign = parseMigration(old.name, `-- replaces ${'0'.repeat(64)}\n${silent.sql}`);
    await expect(migrate(world, tenant(), releaseWith(foreign).home)).rejects.toThrow('was edited');
    expect(await migrate(world, tenant(), releaseWith(same).home)).toEqual([]);
  });

  it('drifts in nothing when it makes the same, and in what it makes otherwise', async () => {
    expect(await drift(same)).toEqual([]);
    expect(await drift(anew("alter table notes add mark text default 'x'"))).toMatchObject([
      { object: 'column notes.mark', drift: expect.stringContaining("should be `text default 'x'::text") },
    ]);
  });

  it('lets tenants come with the new text, and one move from the old to the new', async () => {
    const release = releaseWith(same);
    await onboard(world.plane, { slug: `new-${strategy}`, tier: 'pro', strategy }, tenant().place, release);
    const to = strategy === 'schema' ? 'database' : 'schema';
    const operation = await begin(world, tenant().slug, to);
    for (const step of ['prepare', 'capture', 'copy', 'land', 'switchOver', 'complete'])
      await runStep({ ...moverOf(world), release }, { operation, step, input: {} }, ['move'], moveSteps);
    expect(await homeOf(world, tenant())).toMatchObject({ strategy: to });
    expect(await texts(tenant())).toContain(same.checksum);
  });

  it('is taken by a run over all, which applies nothing', async () => {
    const { state, targets } = await migrateAll(world, releaseWith(same));
    expect([state, targets.flatMap(({ applied }) => applied)]).toEqual(['done', []]);
  });
});

/** What its home has got. */
const texts = (tenant: TestTenant) =>
  atHome(world, tenant, async (connection) => {
    const home = await homeOf(world, tenant);
    const history = await asRole(connection, 'tenancy_owner', () => readHistory(connection, home));
    return [...history.values()].map(({ checksum }) => checksum);
  });

it.each([
  [`-- replaces: ${old.checksum}`, 'write `-- replaces '],
  [`--replaces ${old.checksum}`, 'write `-- replaces '],
  [`-- REPLACES ${old.checksum}`, 'write `-- replaces '],
  [`-- replaces ${old.checksum.slice(0, 40)}`, 'give the SHA-256 of the whole earlier text'],
  [`-- replaces ${old.checksum.toUpperCase()}`, 'give the SHA-256 of the whole earlier text'],
])('is refused when it is nearly right: %s', (line, remedy) => {
  expect(() => parseMigration(old.name, `${line}\nselect 1`)).toThrow(remedy);
});

it('is a word in a comment that explains something', () => {
  expect(parseMigration(old.name, '-- replaces the old marks\nselect 1').replaces).toEqual([]);
});
