import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { isolations } from '../../../functions/lib/isolation/isolation.ts';
import { parseMigration, readMigrations } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { harmless, refused, refusedInShared } from './hostile-files.ts';
import { migrate as migrateTenant, targetOf } from './target.ts';

/** Clumsy and hostile files: each is refused, with what is wrong and what to write, and leaves nothing; or it does no harm. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

describe.each(strategies)('%s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const home = () => targetOf(world, tenant()).home;
  const other = () => (strategy === 'rls' ? world.tenants.schema.b.home.schema : 'shared');
  const migrate = (sql: string, isSound: boolean) => {
    const text = sql
      .replaceAll('{other}', other())
      .replaceAll('{stranger}', world.tenants.schema.b.home.login);
    return migrateTenant(world, tenant(), [parseMigration(`${++number}-x.sql`, text)], { isSound });
  };
  /** All of the database that a file could have left something in. */
  const everything = () =>
    world.asProvisioner(tenant(), async (connection) => {
      const { rows } = await connection.query(
        `select (select count(*) from pg_class) as relations, (select count(*) from pg_proc) as functions, (select count(*) from pg_namespace) as schemas,
                (select count(*) from pg_publication) as publications, (select count(*) from pg_default_acl) as defaults, (select count(*) from pg_policy) as policies`,
      );
      return rows[0];
    });
  const findings = () =>
    world.asProvisioner(tenant(), (connection) =>
      asRole(connection, 'tenancy_owner', () => isolations[strategy].check(connection, [home()])),
    );

  it.each([...refused, ...(strategy === 'rls' ? refusedInShared : [])])(
    'refuses %s',
    async (_, sql, names, remedy) => {
      const before = await everything();
      for (const isSound of [true, false]) {
        const error = await (async () => migrate(sql, isSound))().catch((reason: Error) => reason);
        expect(error).toMatchObject({ code: 'migration_refused' });
        const { message } = error as Error;
        expect(message).toMatch(new RegExp(`^${number}-x\\.sql `));
        expect(message).toMatch(names);
        expect(message).toContain(remedy);
      }
      expect(await everything()).toEqual(before);
      expect(await findings()).toEqual([]);
    },
  );

  it.each(harmless)('is not harmed by %s', async (_, sql) => {
    await migrate(sql, true);
    expect(await findings()).toEqual([]);
    const [a, b] = [world.tenants[strategy].a, world.tenants[strategy].b];
    await world.database(b).query("insert into notes (body) values ('theirs') on conflict do nothing");
    expect((await world.database(a).query("select from notes where body = 'theirs'")).rows).toEqual([]);
  });
});

describe('a folder', () => {
  const inFolder = async (files: Record<string, string>) => {
    const folder = await mkdtemp(join(tmpdir(), 'migrations-'));
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    return readMigrations(pathToFileURL(`${folder}/`)).finally(() => rm(folder, { recursive: true }));
  };
  it.each([
    [
      'two of one number',
      ['0001-a.sql', '0001-b.sql'],
      /^0001-b\.sql does not come after 0001-a\.sql: give it/,
    ],
    ['a name in capital letters', ['0001-a.SQL'], /^0001-a\.SQL is not named like .*: rename it/],
    [
      'a name beyond ASCII',
      ['0001-größe.sql'],
      /^0001-größe\.sql is not named like .*: rename it: four digits, then words of small letters/,
    ],
    ['a name with a space', ['0001 a.sql'], /^0001 a\.sql is not named like/],
    ['a number of three digits', ['001-a.sql'], /^001-a\.sql is not named like/],
  ])('is refused with %s', async (_, names, message) => {
    await expect(inFolder(Object.fromEntries(names.map((name) => [name, 'select 1'])))).rejects.toThrow(
      message,
    );
  });
  it('is refused where it is not there: Git keeps no empty one', async () => {
    const read = readMigrations(pathToFileURL('/nowhere/migrations/tenant/'));
    await expect(read).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/^\/nowhere\/migrations\/tenant\/ is not there: make the folder, /),
    });
  });
  it('is refused with what is wrong with any of its files', async () => {
    const files = { '0001-a.sql': 'commit', '0002-b.sql': 'select 1', '0003-c.sql': 'vacuum' };
    await expect(inFolder(files)).rejects.toThrow(
      /^0001-a\.sql handles transactions.*\n0003-c\.sql contains `vacuum`/,
    );
  });
  it('is read without what is no SQL', async () => {
    const read = await inFolder({
      '0001-a.sql': '',
      '0002-b.sql': 'select 1',
      'README.md': '#',
      '0003-c.sql~': 'x',
    });
    expect(read.map(({ name }) => name)).toEqual(['0001-a.sql', '0002-b.sql']);
  });
});
