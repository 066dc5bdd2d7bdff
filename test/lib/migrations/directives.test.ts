import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type MigrationFile, parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { migrateHomes } from '../../../functions/lib/migrations/migrator.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate as migrateTenant, targetOf } from './target.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const concurrent = (sql: string) => parseMigration('9900-x.sql', `-- no-transaction\n${sql}`);

describe('`-- no-transaction`', () => {
  it.each([
    'create index concurrently a on notes (body)',
    'CREATE UNIQUE INDEX CONCURRENTLY a ON notes (lower(body), tenant_id)',
    'create index concurrently a on notes using gin (to_tsvector($$english$$, body)) where amount > 0',
    'drop index concurrently a',
    'reindex table concurrently notes',
    'reindex index concurrently a;',
  ])('allows %s', (sql) => {
    expect(concurrent(sql).concurrent).toBeDefined();
  });

  it.each([
    ['create index a on notes (body)', 'concurrently'],
    ['create index concurrently a on notes (body); select 1', 'exactly one'],
    ['', 'exactly one'],
    ['create unique index concurrently a on notes (body)', 'add tenant_id'],
    ['create unique index concurrently a on notes (body) include (tenant_id)', 'add tenant_id'],
    ['create unique index concurrently a on notes (coalesce(tenant_id, null))', 'add tenant_id'],
    ['create index concurrently if not exists a on notes (body)', 'if [not] exists'],
    ['create index concurrently on notes (body)', 'without'],
    ['create index concurrently a on shared.notes (body)', 'without'],
    ['create index concurrently a on only notes (body)', 'without'],
    ['drop index concurrently if exists a', 'without'],
    ['vacuum notes', 'vacuum'],
    ['update notes set amount = 0', 'without'],
  ])('refuses %s', (sql, remedy) => {
    expect(() => concurrent(sql)).toThrow(remedy);
  });

  it('is asked for where a statement needs it, and refused when it is nearly right', () => {
    expect(() => parseMigration('9900-x.sql', 'create index concurrently a on notes (body)')).toThrow(
      /begins with `-- no-transaction`/,
    );
    for (const line of ['-- no transaction', '--no-transaction', '-- NO-TRANSACTION', '--  shared'])
      expect(() => parseMigration('9900-x.sql', `${line}\nselect 1`)).toThrow(
        /write `-- (no-transaction|shared)`/,
      );
    // In a comment that explains something it is a word.
    expect(
      parseMigration('9900-x.sql', '-- these tables are shared by all\nselect 1').makesReferenceTables,
    ).toBe(false);
  });
});

it.each([
  "select 'open",
  '/* open',
  'select $body$ open',
  'create table "open (id int)',
  "select 'a''",
  "select E'\\'",
])(
  'a file may not leave a quote or comment open, behind which another home’s statements would stand: %s',
  (sql) => {
    expect(() => parseMigration('9900-x.sql', sql)).toThrow(/does not end/);
  },
);

it.each([
  'create extension pg_trgm',
  'create schema mine',
  'set search_path = public',
  'set local search_path to x',
])('a file leaves to others: %s', (sql) => {
  expect(() => parseMigration('9900-x.sql', sql)).toThrow(/migration_refused|leave|name it in the setting/);
});

describe.each(strategies)('%s', (strategy) => {
  const tenant = () => world.tenants[strategy].a;
  const home = () => targetOf(world, tenant()).home;
  const migrate = (...files: MigrationFile[]) => migrateTenant(world, tenant(), files);
  const asOwner = (sql: string) =>
    world.asProvisioner(tenant(), async (connection) => {
      await connection.query(`set role tenancy_owner; set search_path = ${home().schema}`);
      return (await connection.query(sql)).rows;
    });
  /** Does `work` while an older transaction writes to the notes, for which an index built beside it has to wait. */
  const besideAnOlder = <T>(work: (end: () => Promise<unknown>) => Promise<T>) =>
    world.asProvisioner(tenant(), async (older) => {
      await older.query(
        `begin isolation level repeatable read; set local role tenancy_owner; lock table ${home().schema}.notes in row exclusive mode`,
      );
      return work(() => older.query('commit'));
    });
  const untilWaiting = (statement: string) =>
    expect
      .poll(() =>
        world.asProvisioner('catalog', async (connection) => {
          const { rows } = await connection.query(
            `select from pg_stat_activity where wait_event_type = 'Lock' and query like $1`,
            [`%${statement}%`],
          );
          return rows.length;
        }),
      )
      .toBe(1);
  const indexes = () =>
    asOwner(
      `select c.relname as name, i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid
        where c.relnamespace = current_schema()::regnamespace and c.relname like 'con_%' order by 1`,
    );

  it('builds an index without a transaction, once', async () => {
    const file = parseMigration(
      '9800-con-body.sql',
      '-- no-transaction\ncreate index concurrently con_body on notes (body, tenant_id)',
    );
    expect(await migrate(file)).toEqual(['9800-con-body.sql']);
    expect(await migrate(file)).toEqual([]);
    expect(await indexes()).toEqual([{ name: 'con_body', valid: true }]);
  });

  it('runs files of both kinds in their order', async () => {
    const applied = await migrate(
      parseMigration('9801-kind.sql', 'alter table notes add column kind text'),
      parseMigration(
        '9802-con-kind.sql',
        '-- no-transaction\ncreate unique index concurrently con_kind on notes (kind, tenant_id)',
      ),
      parseMigration(
        '9803-use.sql',
        'alter table notes add constraint con_unique unique using index con_kind',
      ),
    );
    expect(applied).toEqual(['9801-kind.sql', '9802-con-kind.sql', '9803-use.sql']);
  });

  it('leaves nothing of a statement that fails', async () => {
    await world.database(tenant()).query("insert into notes (body, amount) values ('one', 7), ('two', 7)");
    const file = parseMigration(
      '9804-con-amount.sql',
      '-- no-transaction\ncreate unique index concurrently con_amount on notes (tenant_id, amount)',
    );
    await expect(migrate(file)).rejects.toThrow(
      /9804-con-amount.sql failed: could not create unique index .*23505/,
    );
    expect((await indexes()).map(({ name }) => name)).not.toContain('con_amount');
    await world.database(tenant()).query("delete from notes where body = 'two'");
    expect(await migrate(file)).toEqual(['9804-con-amount.sql']);
  });

  it('ends a statement without a transaction that takes longer than it may, by name, and leaves nothing of it', async () => {
    const file = parseMigration(
      '9804-con-long.sql',
      '-- no-transaction\ncreate index concurrently con_long on notes (body, tenant_id)',
    );
    const { outcomes } = await besideAnOlder(async (end) => {
      const migrating = world.asProvisioner(tenant(), (connection) =>
        migrateHomes(connection, [targetOf(world, tenant())], [file], { statementTimeout: 1_000 }),
      );
      // Its time is over: what it has begun goes, and that has to wait as well.
      await untilWaiting('drop index concurrently');
      await end();
      return migrating;
    });
    expect(outcomes[0]!.error?.message).toMatch(/^9804-con-long.sql has a statement that takes longer/);
    expect((await indexes()).map(({ name }) => name)).not.toContain('con_long');
  });

  it('goes on where a run died: an invalid index is dropped, a finished one is kept', async () => {
    const sql = 'create index concurrently con_dead on notes (amount, body, tenant_id)';
    const file = parseMigration('9805-con-dead.sql', `-- no-transaction\n${sql}`);
    const begun = `insert into _migrations (name, checksum, applied_at) values ('${file.name}', '${file.checksum}', 'infinity')`;
    // As a process leaves it that was killed in the middle: the wait for an older transaction is where it was.
    await asOwner(begun);
    await besideAnOlder(async (end) => {
      const building = asOwner(sql.replace('create', '/* left alone */ create')).catch(
        (error: Error) => error.message,
      );
      await untilWaiting('left alone');
      await world.asProvisioner('catalog', (connection) =>
        connection.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tenancy_provisioner' and query like '%left alone%' and pid <> pg_backend_pid()`,
        ),
      );
      expect(await building).toMatch(/terminat/);
      await end();
    });
    expect(await indexes()).toContainEqual({ name: 'con_dead', valid: false });
    expect(await migrate(file)).toEqual(['9805-con-dead.sql']);
    expect(await indexes()).toContainEqual({ name: 'con_dead', valid: true });

    const other = parseMigration(
      '9806-con-done.sql',
      '-- no-transaction\ncreate index concurrently con_done on notes (amount, tenant_id)',
    );
    await asOwner(`create index con_done on notes (amount, tenant_id)`);
    await asOwner(begun.replaceAll(file.name, other.name).replaceAll(file.checksum, other.checksum));
    expect(await migrate(other)).toEqual(['9806-con-done.sql']);
  });

  it('runs where the home was mended after a finding, and leaves no index behind one that came meanwhile', async () => {
    const file = parseMigration(
      '9820-con-mended.sql',
      '-- no-transaction\ncreate index concurrently con_mended on notes (amount, tenant_id)',
    );
    const granted = (verb: string, word: string) =>
      asOwner(`${verb} truncate on notes ${word} ${home().login}`);
    await granted('grant', 'to');
    await expect(migrate(file)).rejects.toThrow(/TRUNCATE is granted/);
    expect((await indexes()).map(({ name }) => name)).not.toContain('con_mended');
    await granted('revoke', 'from');

    // The build waits for the older one, and so for the grant.
    await besideAnOlder(async (end) => {
      const building = migrate(file).catch((error: Error) => error.message);
      await expect.poll(indexes).toContainEqual({ name: 'con_mended', valid: false });
      await granted('grant', 'to');
      await end();
      expect(await building).toMatch(/TRUNCATE is granted/);
    });
    expect((await indexes()).map(({ name }) => name)).not.toContain('con_mended');
    await granted('revoke', 'from');
    expect(await migrate(file)).toEqual(['9820-con-mended.sql']);
  });

  it('builds an index once when several come at once, and is kept from it by nothing that a tenant holds or says', async () => {
    const file = parseMigration(
      '9822-con-once.sql',
      '-- no-transaction\ncreate index concurrently con_once on notes (amount, tenant_id)',
    );
    await world.asLogin(world.tenants[strategy].b, async (connection) => {
      await connection.query("select pg_advisory_lock(hashtext('tenancy.migrate'), hashtext($1))", [
        home().schema,
      ]);
      await connection.query(`set application_name = 'tenancy.migrate ${home().schema}'`);
      const applied = await Promise.all([1, 2, 3].map(() => migrate(file)));
      expect(applied.flat()).toEqual(['9822-con-once.sql']);
    });
    expect(await indexes()).toContainEqual({ name: 'con_once', valid: true });
  });

  it('completes a home of an older runtime before the audit of an index', async () => {
    await asOwner('drop trigger tenancy_capture on notes');
    const file = parseMigration(
      '9823-con-older.sql',
      '-- no-transaction\ncreate index concurrently con_older on notes (amount, tenant_id)',
    );
    const { outcomes } = await world.asProvisioner(tenant(), (connection) =>
      migrateHomes(connection, [targetOf(world, tenant())], [file], { completesAll: true }),
    );
    expect(outcomes).toMatchObject([{ applied: ['9823-con-older.sql'] }]);
    expect(outcomes[0]!.error).toBeUndefined();
  });

  it('makes reference tables that a tenant reads, joins and points at, and cannot change', async () => {
    await migrate(
      parseMigration(
        '9807-currencies.sql',
        `-- shared
         create table currencies (code text primary key, name text not null);
         insert into currencies values ('EUR', 'Euro'), ('CHF', 'Franc');`,
      ),
      parseMigration(
        '9808-priced.sql',
        'alter table notes add column currency text references currencies (code)',
      ),
    );
    const db = world.database(tenant());
    await db.query("insert into notes (body, currency, amount) values ('priced', 'CHF', 123)");
    const joined = 'select c.name from notes n join currencies c on c.code = n.currency';
    expect((await db.query(joined)).rows).toEqual([{ name: 'Franc' }]);
    await expect(
      db.query("insert into notes (body, currency, amount) values ('no', 'XXX', 124)"),
    ).rejects.toMatchObject({ sqlstate: '23503' });
    for (const change of [
      "insert into currencies values ('USD', 'Dollar')",
      "update currencies set name = 'x'",
      'delete from currencies',
    ])
      await expect(db.query(change)).rejects.toMatchObject({ sqlstate: '42501' });
    // A later file that forgets tenant_id gets no such table.
    await expect(
      migrate(parseMigration('9809-forgot.sql', 'create table forgot (id uuid primary key)')),
    ).rejects.toThrow(/forgot: has no column `tenant_id/);
  });
});
