import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { moving } from '../../../functions/lib/lifecycle/move-turn.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { copyRows } from '../../../functions/lib/move/copy.ts';
import { limits, startWorld, strategies, type World } from '../../support/world.ts';
import { begin, moverOf, step } from '../lifecycle/move.support.ts';

/** Keys of several columns, of types whose text needs care; and a table with one row a tenant. */
const files = parseMigration(
  '9501-files.sql',
  `create table files (
     tenant_id uuid not null, path text not null, at timestamptz not null, size numeric not null, content bytea,
     primary key (tenant_id, path, at)
   );
   create table preferences (tenant_id uuid primary key, theme text not null);`,
);

/** What COPY's text escapes, what it looks like, and what SQL would. */
const paths = [
  ...[
    '',
    ' ',
    'a\tb',
    'a\nb',
    'a\rb',
    'a\bb',
    'a\fb',
    'a\vb',
    '\\',
    '\\N',
    '\\.',
    '\\t',
    'a\\',
    "it's",
    '"x"',
    '$1',
  ],
  ...['é', '\u{1F600}', '{}', 'null', '); drop table files; --', '\n', '\\\n', 'a\\\\tb'],
];

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [files] });
});
afterAll(() => world?.close());

describe.each(strategies)('a copy from %s', (from) => {
  it.each([1, 2, 5, 48])('goes on where a range of %i rows has ended', async (rangeRows) => {
    const tenant = await world.addTenant(from);
    const db = world.database(tenant, limits('w'));
    await db.query(sql`
      insert into files (path, at, size, content)
      select path, at::timestamptz, 1.50, convert_to(path, 'UTF8')
        from unnest(${paths}::text[]) path, unnest(array['-infinity', '2026-01-01 00:00:00.000001+14']) at`);
    await db.query(sql`insert into preferences (theme) values ('dark')`);

    const operation = await begin(world, tenant.slug, from === 'schema' ? 'rls' : 'schema');
    for (const name of ['prepare', 'capture'] as const) await step(world, operation, name);
    let ranges = 0;
    await world.asProvisioner('catalog', (catalog) =>
      moving(moverOf(world), catalog, operation, async (sides) => {
        // Every range is an attempt's last: what follows goes by what the one before has recorded.
        do ranges += 1;
        while (await copyRows(sides, () => true, rangeRows));
      }),
    );
    expect(ranges).toBeGreaterThan((paths.length * 2) / rangeRows);
    // Compares every row.
    for (const name of ['land', 'switchOver'] as const) await step(world, operation, name);

    const { rows } = await world
      .database(tenant, limits('r'))
      .query(sql`select count(distinct path)::int as paths, count(*)::int as rows from files`);
    expect(rows).toEqual([{ paths: paths.length, rows: paths.length * 2 }]);
  });
});
