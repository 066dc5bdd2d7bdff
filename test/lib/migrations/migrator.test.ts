import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { isolations, sharedHome } from '../../../functions/lib/isolation/isolation.ts';
import { type MigrationFile, parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { migrateHome, migrateHomes } from '../../../functions/lib/migrations/migrator.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

describe('a file', () => {
  it.each([
    'commit;',
    '/* a /* nested */ one */ Rollback',
    "select ';'; begin",
    'set role postgres',
    'set local role tenancy_keeper',
    'set session authorization postgres',
    'reset role',
  ])('may not leave its transaction or role: %s', (sql) => {
    expect(() => parseMigration('0001-x.sql', sql)).toThrow(/leave transactions and roles to the migrator/);
  });

  it.each([
    "select 'commit; rollback'",
    'create function f() returns void language plpgsql as $body$ begin commit; end $body$',
    '-- commit;\nselect 1',
    'create table "commit; x" (id int)',
    "create procedure p() language sql begin atomic update t set a = case when b then 1 else 2 end; select 'begin;'; end",
  ])('may hold such words where they do nothing: %s', (sql) => {
    expect(parseMigration('0001-x.sql', sql).sql).toBe(sql);
  });

  it.each(['1-x.sql', '0001_x.sql', '0001-X.sql', '0001.sql'])('is not named %s', (name) => {
    expect(() => parseMigration(name, 'select 1')).toThrow(/rename it/);
  });
});

describe.each(strategies)('%s', (strategy) => {
  const tenant = () => world.tenants[strategy].a;
  const migrate = (...files: MigrationFile[]) =>
    world.asProvisioner(tenant(), (connection) =>
      migrateHome(
        connection,
        {
          home: isolations[strategy].ownsTables ? tenant().home : sharedHome,
          databaseId: tenant().home.databaseId,
          keys: world.plane.keys,
        },
        files,
      ),
    );

  it('ends a statement that takes longer than it may, by name, and leaves nothing of its file', async () => {
    const files = [
      parseMigration('9301-quick.sql', 'alter table notes add column quick text'),
      parseMigration('9302-slow.sql', 'alter table notes add column slow text; select pg_sleep(20)'),
    ];
    const target = {
      home: isolations[strategy].ownsTables ? tenant().home : sharedHome,
      databaseId: tenant().home.databaseId,
      keys: world.plane.keys,
    };
    const { outcomes } = await world.asProvisioner(tenant(), (connection) =>
      migrateHomes(connection, [target], files, { statementTimeout: 1_000 }),
    );
    expect(outcomes[0]).toMatchObject({ applied: ['9301-quick.sql'] });
    expect(outcomes[0]!.error).toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/^9302-slow.sql has a statement that takes longer .*several files/),
    });
  });

  it('gives each file of a home by itself the whole time, ends one that takes longer by name, and begins none too late', async () => {
    const home = isolations[strategy].ownsTables ? tenant().home : sharedHome;
    const target = { home, databaseId: tenant().home.databaseId, keys: world.plane.keys };
    const withBounds = (files: MigrationFile[], transactionTimeout: number, until: number) =>
      world.asProvisioner(tenant(), (connection) =>
        migrateHomes(connection, [target], files, { transactionTimeout, until }),
      );
    const slow = [1, 2, 3, 4, 5].map((n) => parseMigration(`931${n}-slow.sql`, 'select pg_sleep(0.8)'));
    const later = Date.now() + 60_000;
    expect(await withBounds(slow, 3_900, later)).toMatchObject({
      outcomes: [{ applied: slow.map(({ name }) => name) }],
      isLost: false,
    });
    const long = parseMigration('9316-long.sql', 'select pg_sleep(0.4); select pg_sleep(0.4)');
    const { outcomes, isLost } = await withBounds([long], 600, later);
    expect([outcomes[0]!.applied, isLost]).toEqual([[], true]);
    expect(outcomes[0]!.error).toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/^9316-long.sql takes longer than a function has .*several files/),
    });
    expect(await withBounds([long], 9_000, Date.now())).toMatchObject({
      outcomes: [{ applied: [], isLeft: true }],
    });
  });

  it('applies a file once, also when two migrators come at the same time', async () => {
    const file = parseMigration('9300-once.sql', 'alter table notes add column once text');
    const applied = await Promise.all(Array.from({ length: 6 }, () => migrate(file)));
    expect(applied.flat()).toEqual(['9300-once.sql']);
  });

  it('is kept from nothing by a tenant that holds every advisory lock it can name', async () => {
    const names = [tenant().home.schema, world.tenants[strategy].b.home.schema, 'shared', 'main'];
    await world.asLogin(world.tenants[strategy].b, async (connection) => {
      for (const name of names)
        await connection.query("select pg_advisory_lock(hashtext('tenancy.migrate'), hashtext($1))", [name]);
      const history = `${(isolations[strategy].ownsTables ? tenant().home : sharedHome).schema}._migrations`;
      await connection.query('begin');
      await expect(connection.query(`lock table ${history} in access share mode`)).rejects.toMatchObject({
        code: expect.stringMatching(/42501|3F000|42P01/),
      });
      await connection.query('rollback');
      expect(await migrate(parseMigration('9299-held.sql', 'select 1'))).toEqual(['9299-held.sql']);
    });
  });

  it('refuses a file that was edited after it was applied', async () => {
    await migrate(parseMigration('9301-edited.sql', 'select 1'));
    await expect(migrate(parseMigration('9301-edited.sql', 'select 2'))).rejects.toThrow(
      /restore it and add a new file/,
    );
  });

  it('leaves nothing of a file that fails, and says which and why', async () => {
    const half = parseMigration('9302-half.sql', 'create table half (id int); select 1 / 0');
    await expect(migrate(half)).rejects.toThrow(/9302-half.sql failed: division by zero \(SQLSTATE 22012\)/);
    await expect(migrate(parseMigration('9303-after.sql', 'select * from half'))).rejects.toThrow(
      /does not exist/,
    );
  });

  it('backfills every row of the home, in each strategy', async () => {
    const { a, b } = world.tenants[strategy];
    for (const who of [a, b])
      await world.database(who).query("insert into notes (body) values ('to be filled')");
    await migrate(
      parseMigration(
        '9304-fill.sql',
        "alter table notes add column filled text; update notes set filled = 'yes' where body = 'to be filled'",
      ),
    );
    const filled = async (who: typeof a) =>
      (await world.database(who).query("select filled from notes where body = 'to be filled'")).rows;
    expect(await filled(a)).toEqual([{ filled: 'yes' }]);
    // On shared tables one run fills all tenants' rows; elsewhere the neighbour has its own.
    if (!isolations[strategy].ownsTables) expect(await filled(b)).toEqual([{ filled: 'yes' }]);
  });

  it('does not validate a foreign key over orphans', async () => {
    await world.database(tenant()).query("insert into notes (body, amount) values ('an orphan', 77)");
    const orphans = parseMigration(
      '9305-orphans.sql',
      `alter table notes add column ghost uuid; update notes set ghost = gen_random_uuid() where amount = 77;
       alter table notes add constraint ghost foreign key (tenant_id, ghost) references notes (tenant_id, note_id)`,
    );
    await expect(migrate(orphans)).rejects.toThrow(/SQLSTATE 23503/);
  });
});

describe('the owner of shared tables, whom forced row security binds too', () => {
  const asOwner = <T>(work: (query: (sql: string) => Promise<{ rowCount: number | null }>) => Promise<T>) =>
    world.asProvisioner(world.tenants.rls.a, (connection) =>
      asRole(connection, 'tenancy_owner', () => work((sql) => connection.query(sql))),
    );

  it('raises without a context for maintenance, where it would silently change nothing', async () => {
    for (const statement of [
      'update shared.notes set amount = 1',
      'select * from shared.notes',
      'delete from shared.notes',
    ])
      await expect(asOwner((query) => query(statement))).rejects.toMatchObject({ code: 'TN001' });
  });

  it('would report UPDATE 0 and accept orphans if the guard were for everybody and the owner had no policy', async () => {
    await world.database(world.tenants.rls.a).query("insert into notes (body, amount) values ('kept', 5)");
    const outcome = asOwner(async (query) => {
      await query(
        'drop policy tenancy_maintenance on shared.notes; drop policy tenancy_guard on shared.notes; drop policy tenancy_rows on shared.notes',
      );
      await query(
        "create policy tenancy_guard on shared.notes as restrictive using (tenant_id = nullif(current_setting('tenancy.tenant', true), '')::uuid)",
      );
      const { rowCount } = await query('update shared.notes set amount = 6');
      await query('alter table shared.notes add column ghost uuid default gen_random_uuid()');
      await query(
        'alter table shared.notes add constraint ghost foreign key (tenant_id, ghost) references shared.notes (tenant_id, note_id)',
      );
      throw Object.assign(new Error('undo'), { rowCount });
    });
    await expect(outcome).rejects.toMatchObject({ message: 'undo', rowCount: 0 });
  });
});
