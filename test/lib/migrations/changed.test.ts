import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import { signContext } from '../../../functions/lib/isolation/context.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { gaps, mended, ownGaps, ownMended, sharedGaps, sharedMended } from './gaps.ts';
import { migrate, targetOf } from './target.ts';

/**
 * In its transaction a migration is audited over what it has changed, not over all that a home has. That is as good as the
 * whole audit: whatever a transaction does to a sound home, both find the same.
 */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

/** Beyond what a home of the tests has: tables with keys to one for all tenants, partitions, a view, a function. */
const laidOut = `-- shared
create table kinds (kind text primary key);
create table things (tenant_id uuid not null, id uuid not null, kind text not null references kinds, primary key (tenant_id, id));
create table parts (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id), foreign key (tenant_id, id) references things);
create table days (tenant_id uuid not null, day date not null, primary key (tenant_id, day)) partition by range (day);
create table days_2026 partition of days for values from ('2026-01-01') to ('2027-01-01');
create view sizes with (security_invoker = true) as select note_id, length(body) as size from notes;
create function many() returns bigint language sql stable as 'select count(*) from notes';`;

/** Each takes something away from a home that the whole audit then misses. `{login}`: the home's. */
const breaches: [string, string][] = [
  ['a key to a table for all that a tenant may write to', 'grant insert on kinds to {login}'],
  ['a key to a table for all that nobody may read', 'revoke select on kinds from {login}'],
  [
    'a key to a table for all that gets a tenant',
    'alter table kinds add column tenant_id uuid not null default gen_random_uuid()',
  ],
  ['a key whose other side is renamed', 'alter table things rename column tenant_id to tenant'],
  ['no key', 'alter table days drop constraint days_pkey'],
  ['a column that is dropped with its key', 'alter table parts drop column tenant_id cascade'],
  ['a right to pass on', 'grant select on things to {login} with grant option'],
  ['a column of a view for everybody', 'grant select (size) on sizes to public'],
  ['a view with rights of its own', 'alter view sizes reset (security_invoker)'],
  [
    'a replaced view',
    'drop view sizes; create view sizes as select note_id, length(body) as size from notes',
  ],
  ['a function with rights of its own', 'alter function many() security definer'],
  [
    'a replaced function',
    "create or replace function many() returns bigint language sql security definer set search_path = extensions as 'select 1'",
  ],
  ['a schema for everybody', 'grant usage on schema {schema} to public'],
  [
    'a partition without its parent’s trigger',
    'alter table days_2026 disable trigger tenancy_capture; alter table days disable trigger tenancy_capture',
  ],
  [
    'a partition for everybody',
    "create table days_2027 partition of days for values from ('2027-01-01') to ('2028-01-01'); grant all on days_2027 to public",
  ],
  ['a renamed trigger', 'alter trigger tenancy_capture on parts rename to other'],
  [
    'a trigger for fewer changes',
    'create or replace trigger tenancy_capture after insert on parts for each row execute function tenancy.capture()',
  ],
  [
    'a key that may not wait',
    'alter table parts drop constraint parts_tenant_id_id_fkey; alter table parts add foreign key (tenant_id, id) references things',
  ],
  [
    'an identity beside a sequence',
    "alter table parts add column n bigint generated always as identity; create sequence s; alter table parts add column m bigint default nextval('s')",
  ],
  [
    'a rename that hides a table',
    'alter table parts rename to pieces; grant references on pieces to {login}',
  ],
];

/** As a migration may run it: plainly, or below, so that what it writes has another transaction's number. */
const ways: Readonly<Record<string, (sql: string) => string>> = {
  plainly: (sql) => sql,
  'in a subtransaction': (sql) =>
    `do $outer$ begin begin execute $inner$${sql}$inner$; exception when division_by_zero then null; end; end $outer$`,
  'after one that was undone': (sql) =>
    `do $outer$ begin begin execute $inner$${sql}$inner$; perform 1 / 0; exception when division_by_zero then null; end; execute $inner$${sql}$inner$; end $outer$`,
};

const found = async (connection: ControlConnection, sql: string, values: readonly unknown[]) => {
  const { rows } = await connection.query<{ object: string; finding: string }>(sql, values);
  return rows.map(({ object, finding }) => `${object}: ${finding}`).sort();
};

describe.each(strategies)('%s', (strategy) => {
  const tenant = () => world.tenants[strategy].a;
  const home = () => targetOf(world, tenant()).home;
  beforeAll(() => migrate(world, tenant(), [parseMigration('9100-laid-out.sql', laidOut)]));

  /** In a transaction that is rolled back: what both audits find, and what is left of it after completing. */
  const afterwards = (sql: string) =>
    world.asProvisioner(tenant(), async (connection) => {
      const { schema, login, tenant: id } = home();
      const here = [[schema], [id], [login], strategy === 'rls'];
      const { databaseId, keys } = targetOf(world, tenant());
      const context = signContext(
        keys,
        { databaseId, tenant: id, epoch: 1, mode: 'w', purpose: 'migrate', statementMs: 0 },
        Date.now(),
      );
      await connection.query(
        `begin; set local role tenancy_owner; set local search_path = "${schema}", extensions, pg_temp;
         set local tenancy.context = '${context}'; set local tenancy.maintained = 'all'`,
      );
      await connection.query(sql.replaceAll('{login}', login).replaceAll('{schema}', schema));
      const whole = () => found(connection, 'select * from tenancy.audit_homes($1, $2, $3, $4)', here);
      const narrow = () =>
        found(
          connection,
          `select * from tenancy.audit_relations($1, $2, $3, $4, tenancy.changed_relations($1))
           union all select * from tenancy.audit_reach($1, $3, tenancy.changed_relations($1))`,
          here,
        );
      const broken = { whole: await whole(), narrow: await narrow() };
      const completed = await found(
        connection,
        'select * from tenancy.complete_changes($1, $2, $3, $4)',
        here,
      );
      const left = { whole: await whole(), narrow: completed };
      await connection.query('rollback');
      return { broken, left };
    });

  const all: [string, string][] = [
    ...[...gaps, ...(strategy === 'rls' ? sharedGaps : ownGaps)].map(([name, sql]): [string, string] => [
      name,
      sql,
    ]),
    ...[...mended, ...(strategy === 'rls' ? sharedMended : ownMended)].map((sql): [string, string] => [
      sql,
      sql,
    ]),
    ...breaches,
  ];
  describe.each(Object.keys(ways))('%s', (way) => {
    it.each(all)('finds all of: %s', async (_, sql) => {
      const { broken, left } = await afterwards(ways[way]!(sql));
      expect(broken.whole).not.toEqual([]);
      expect(broken.narrow).toEqual(broken.whole);
      expect(left.narrow).toEqual(left.whole);
    });
  });

  it('looks at nothing that a transaction only fills with rows', async () => {
    const changed = await world.asProvisioner(tenant(), async (connection) => {
      const { schema } = home();
      await connection.query(`begin; set local role tenancy_owner; set local search_path = "${schema}"`);
      await connection.query(
        "insert into kinds values ('a'); update kinds set kind = 'b'; analyze kinds; create index on things (kind)",
      );
      const { rows } = await connection.query(
        'select r::regclass::text as name from unnest(tenancy.changed_relations($1)) r',
        [[schema]],
      );
      await connection.query('rollback');
      return rows.map(({ name }) => name as string);
    });
    expect(changed).toContain('things');
    expect(changed).not.toContain('notes');
    // What points at it comes along.
    expect(changed).toContain('parts');
    expect(changed).not.toContain('days');
  });
});
