import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { isolations } from '../../../functions/lib/isolation/isolation.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { migrateHomes } from '../../../functions/lib/migrations/migrator.ts';
import { rehearse } from '../../../functions/lib/migrations/reference.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate as migrateTenant, targetOf } from './target.ts';

/** What every tenant reads holds nothing of a tenant's: no file both reads tenants' rows and writes such tables. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const shared = (sql: string) => `-- shared\n${sql}`;

/** In a file that begins with `-- shared`: what reads tenants' rows, or makes them everybody's. */
const publishing: [string, string][] = [
  ['copies them', 'create table leak as select body from notes'],
  ['inserts them', 'insert into codes select body from notes'],
  ['inserts one in passing', 'do $$ begin insert into codes select count(*)::text from notes; end $$'],
  [
    'does it in words that are put together',
    "do $$ begin execute 'insert into codes select body from no' || 'tes'; end $$",
  ],
  [
    'reads them through a view',
    'create view seen with (security_invoker = true) as select body from notes; create table leak as table seen',
  ],
  [
    'reads them in a function',
    "create function pick() returns text language sql as 'select count(*)::text from notes'; insert into codes values (pick())",
  ],
  [
    'takes row security away before',
    'alter table notes disable row level security, no force row level security; insert into codes select distinct body from notes',
  ],
  [
    'reads them by an index',
    "set local enable_seqscan = off; insert into codes select body from notes where body > ''",
  ],
  ['reads some of them', 'insert into codes select body from notes tablesample bernoulli (100)'],
  ['changes them', "update notes set body = body || '!'"],
  [
    'returns what it deletes',
    'with gone as (delete from notes returning body) insert into codes select body from gone',
  ],
  ['has them computed', 'alter table notes alter body type text using lower(body)'],
  [
    'reads them through a parent',
    'create table stem (like notes including defaults); alter table notes inherit stem; create table leak as select body from stem; alter table notes no inherit stem; drop table stem',
  ],
];
const turning =
  'alter table notes drop column tenant_id cascade; revoke insert, update, delete on notes from {login}';

describe.each(strategies)('%s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const target = () => targetOf(world, tenant());
  const home = () => target().home;
  const file = (sql: string) => parseMigration(`${++number}-x.sql`, sql.replaceAll('{login}', home().login));
  const migrate = (...sql: string[]) => migrateTenant(world, tenant(), sql.map(file));
  const refusal = (...sql: string[]) =>
    migrate(...sql).then(
      () => 'applied',
      (error: Error) => error.message,
    );
  const rows = async (sql: string) => (await world.database(tenant()).query(sql)).rows;

  beforeAll(async () => {
    for (const who of Object.values(world.tenants[strategy]))
      await world.database(who).query("insert into notes (body) values ('a secret')");
    await migrate(shared("create table codes (code text primary key); insert into codes values ('EUR')"));
  });

  it.each(publishing)('refuses a file with `-- shared` that %s', async (_, sql) => {
    for (const texts of [[shared(sql)], [shared('select 1'), shared(sql)]]) {
      const message = await refusal(...texts);
      expect(message).toMatch(new RegExp(`^${number}-x\\.sql `));
      // By its rows, or by row security before it gets one.
      expect(message).toMatch(/notes: holds tenants' rows, and is read|SQLSTATE TN001\), at line 2 \(`/);
      expect(message).toContain('file of its own, without `-- shared`');
    }
    expect(await rows('select code from codes')).toEqual([{ code: 'EUR' }]);
    expect(await rows("select count(*)::int as n from notes where body = 'a secret'")).toEqual([{ n: 1 }]);
  });

  it('refuses one that fetches them by their place, under the context of an earlier file', async () => {
    // In two parts: a setting that the file names would end with it.
    const keeping =
      "do $$ begin perform set_config('tests.' || 'kept', current_setting('tenancy.context'), false); end $$";
    const taking = `do $$ begin
      perform set_config('tenancy.context', current_setting('tests.kept'), true); set local tenancy.maintained = '${tenant().id}'; set local enable_seqscan = off;
      insert into codes select body from notes where ctid = any ('{"(0,1)","(0,2)","(0,3)"}'::tid[]) on conflict do nothing; end $$`;
    expect(await refusal(keeping, shared(taking))).toMatch(/notes: holds tenants' rows, and is read/);
    expect(await rows('select code from codes')).toEqual([{ code: 'EUR' }]);
  });

  // PostgreSQL counts the rows of a sample, and not the sample.
  it.each(publishing.filter(([, sql]) => !sql.includes('tablesample')))(
    'refuses it before the first home is changed, in one without rows: %s',
    async (_, sql) => {
      const had = [
        ...world.release.home,
        parseMigration('9099-codes.sql', shared('create table codes (code text primary key)')),
      ];
      const rehearsed = world.asProvisioner(tenant(), (connection) =>
        rehearse(connection, target(), { had, fresh: [file(shared(sql))] }),
      );
      await expect(rehearsed).rejects.toThrow(
        /(\n {2}notes: holds tenants' rows, and is read|SQLSTATE TN001\), at line 2 \(`).*file of its own/,
      );
    },
  );

  it.each([['with'], ['without']])(
    'refuses to make a table of tenants’ rows one for all, %s the directive',
    async (how) => {
      const message = await refusal(how === 'with' ? shared(turning) : turning);
      expect(message).toMatch(
        /notes: (has tenants' rows, and )?would be every tenant's to read.*`-- shared`/,
      );
    },
  );

  it('refuses a table that a file without the directive grants for reading', async () => {
    const message = await refusal('create table leak (body text); grant select on leak to {login}');
    expect(message).toMatch(
      /leak: would be every tenant's to read.*begin the file that makes it with `-- shared`/,
    );
    expect(
      await refusal('do $$ begin create table leak (code text); grant select on leak to {login}; end $$'),
    ).toMatch(/leak: would be/);
  });

  it.each([
    'create table kin (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id)) inherits (codes)',
    `create table kin (tenant_id uuid not null, id uuid not null, code text not null, primary key (tenant_id, id));
     alter table kin inherit codes`,
  ])('refuses a table of tenants’ rows that are read through one for all: %s', async (sql) => {
    for (const text of [sql, shared(sql)])
      expect(await refusal(text)).toMatch(
        /kin: inherits from .*codes, through which every tenant would read its rows.*`like`/,
      );
  });

  it('refuses a file without the directive that changes what every tenant reads, whatever it reads', async () => {
    for (const sql of [
      "insert into codes values ('CHF')",
      'insert into codes select distinct body from notes on conflict do nothing',
      "do $$ begin update codes set code = 'x'; end $$",
      'with secret as (select body from notes) delete from codes using secret',
    ])
      expect(await refusal(sql)).toMatch(
        /codes: is every tenant's to read, and is changed.*change it in a file that begins with `-- shared`/,
      );
    expect(await rows('select code from codes')).toEqual([{ code: 'EUR' }]);
  });

  it('knows one file of a batch from the other', async () => {
    const both = [shared("insert into codes values ('CHF')"), 'update notes set amount = 1'].map(file);
    const { outcomes } = await world.asProvisioner(tenant(), (connection) =>
      migrateHomes(connection, [target()], both),
    );
    expect(outcomes).toMatchObject([{ applied: both.map(({ name }) => name) }]);
    expect(outcomes[0]!.error).toBeUndefined();
    expect(
      await refusal('update notes set amount = 2', shared('insert into codes select body from notes')),
    ).toMatch(/^\d+-x\.sql .*(notes: holds|TN001)/s);
    await migrate(shared("delete from codes where code = 'CHF'"));
  });

  it('lets a file with the directive do all that concerns no tenant’s rows', async () => {
    await migrate(
      shared(`create table rates (code text references codes, rate numeric, primary key (code));
              insert into rates select code, 1 from codes; update rates set rate = 2; create index on rates (rate);
              create table orders (tenant_id uuid not null, id uuid not null, code text references codes, primary key (tenant_id, id));
              create view priced with (security_invoker = true) as select n.body, r.rate from notes n cross join rates r;
              alter table notes add column code text references codes;`),
      'create index on rates (rate, code); alter table rates add column note text; alter table notes add column rate text references rates (code)',
    );
    expect(await rows('select code, rate::int from rates')).toEqual([{ code: 'EUR', rate: 2 }]);
    const findings = await world.asProvisioner(tenant(), (connection) =>
      asRole(connection, 'tenancy_owner', () => isolations[strategy].check(connection, [home()])),
    );
    expect(findings).toEqual([]);
  });
});
