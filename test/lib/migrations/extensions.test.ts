import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { ensureRuntime, installRuntime } from '../../../functions/lib/migrations/install.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { newestState } from '../../../functions/lib/migrations/release.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate } from './target.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld({ extensions: ['pg_trgm'] });
});
afterAll(() => world?.close());

describe.each(strategies)('%s', (strategy) => {
  it('finds an extension of the setting in its path, and its tools use it', async () => {
    const { a } = world.tenants[strategy];
    const text = 'create index notes_trigrams on notes using gin (body gin_trgm_ops)';
    await migrate(world, a, [parseMigration('9750-trigrams.sql', text)]);
    const { rows } = await world.database(a).query("select similarity('word', 'words') > 0.5 as alike");
    expect(rows).toEqual([{ alike: true }]);
  });
});

describe.each(strategies)('%s', (strategy) => {
  it('refuses a block or function that installs one', async () => {
    const install = "begin execute 'create extension tcn'; end";
    for (const sql of [
      `do $$ ${install} $$`,
      `create function installs() returns void language plpgsql as $$ ${install} $$; select installs(); drop function installs()`,
    ])
      for (const isSound of [true, false])
        await expect(
          migrate(world, world.tenants[strategy].a, [parseMigration('9751-x.sql', sql)], { isSound }),
        ).rejects.toMatchObject({
          code: 'migration_refused',
          message: expect.stringMatching(/extension tcn: is installed.*the setting `extensions`/),
        });
  });
});

describe('the installation', () => {
  const install = (...extensions: string[]) =>
    withConnection(world.shared.admin, (connection) =>
      installRuntime(connection, world.plane.keys, extensions),
    );

  it.each([
    ['dblink', /past the walls/],
    // Trusted, and sends the keys of changed rows to whoever listens.
    ['tcn', /past the walls/],
    [
      'no_such_extension',
      /no_such_extension can't be installed: .*\. Take .*setting `extensions`, or use a server that has it/,
    ],
    // Not trusted: RDS's master may, this role may not.
    [
      'amcheck',
      /amcheck can't be installed: permission denied.*\. Take it out of the setting `extensions`\.$/,
    ],
  ])('refuses %s with the remedy', async (name, message) => {
    await expect(install(name)).rejects.toMatchObject({
      code: 'invalid_settings',
      message: expect.stringMatching(message),
    });
  });

  it('brings a new one to a database that has the runtime already', async () => {
    await withConnection(world.shared.admin, async (connection) => {
      await ensureRuntime(connection, world.plane.keys, world.release.runtime, ['citext']);
      const { rows } = await connection.query("select extname from pg_extension where extname = 'citext'");
      expect(rows).toHaveLength(1);
    });
    // And makes every home a target of the next run.
    const more = { ...world.release, extensions: ['citext', 'pg_trgm'] };
    expect(newestState(more).digest).not.toBe(newestState(world.release).digest);
  });
});
