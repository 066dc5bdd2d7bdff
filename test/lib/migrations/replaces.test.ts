import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { moveSteps } from '../../../functions/lib/lifecycle/move.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { driftOf } from '../../../functions/lib/migrations/drift.ts';
import { readHistory } from '../../../functions/lib/migrations/history.ts';
import { type MigrationFile, parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { onboard } from '../../../infra/local/onboard.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';
import { migrate as migrateAll, request } from '../lifecycle/migrate.support.ts';
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
      driftOf(connection, targetOf(world, tenant()), releaseWith(file).home, new Map()).then(
        ({ drifts }) => drifts,
      ),
    );

  it('is refused without the line, told what to write, and taken with it', async () => {
    const silent = parseMigration(old.name, 'alter table notes add mark text');
    await expect(migrate(world, tenant(), releaseWith(silent).home)).rejects.toThrow(
      `9100-marks.sql was edited after it was applied: restore it and add a new file; or, when homes that lack it can not get it as it was, begin it with \`-- replaces ${old.checksum}\`, and where it makes something else now, bring the homes that have it to the same by a new file.`,
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
    // A database of its own holds one: the move below makes one with the new text.
    if (strategy !== 'database')
      await onboard(world.plane, { slug: `new-${strategy}`, tier: 'pro', strategy }, world.shared, release);
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

/** What the tests below have mended so far: a home gets every file of a release. */
const mended: MigrationFile[] = [];

/** Empty homes have got a wrong rule before the first row refused it: they and the others are brought to one. */
it.each(strategies)('mends a rule that the rows of a tenant refuse: %s', async (strategy) => {
  const number = 9_200 + 10 * strategies.indexOf(strategy);
  const rule = (bound: number) =>
    `alter table notes add constraint short_${strategy} check (length(body) < ${bound})`;
  const fileOf = (place: number, sql: string) => parseMigration(`${number + place}-short.sql`, sql);
  const wrong = fileOf(1, rule(5));
  const tenant = world.tenants[strategy].b;
  await world.database(tenant).query("insert into notes (body) values ('longer than that')");
  const before = { ...world.release, home: [...releaseWith(same).home, ...mended] };
  const empty = request({ canaries: [world.tenants.schema.a.slug] });
  const failed = await migrateAll(world, { ...before, home: [...before.home, wrong] }, empty);
  expect(failed.state).toBe('failed');
  expect(failed.targets).toContainEqual(expect.objectContaining({ state: 'done' }));

  mended.push(
    fileOf(1, `-- replaces ${wrong.checksum}\n${rule(500)}`),
    fileOf(2, `alter table notes drop constraint short_${strategy}; ${rule(500)}`),
  );
  const release = { ...before, home: [...releaseWith(same).home, ...mended] };
  const { state, reason } = await migrateAll(world, release);
  expect([state, reason]).toEqual(['done', undefined]);
  for (const { b } of Object.values(world.tenants))
    expect(
      await world.asProvisioner(b, (connection) =>
        driftOf(connection, targetOf(world, b), release.home, new Map()).then(({ drifts }) => drifts),
      ),
    ).toEqual([]);
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
