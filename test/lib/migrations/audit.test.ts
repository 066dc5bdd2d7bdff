import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { isolations } from '../../../functions/lib/isolation/isolation.ts';
import type { UnprotectedHomeError } from '../../../functions/lib/migrations/apply.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { migrateHome, sharedHome } from '../../../functions/lib/migrations/migrator.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const good =
  'create table extra (tenant_id uuid not null, id uuid not null default gen_random_uuid(), note text, primary key (tenant_id, id))';

/** A migration that would leave a gap, the object the refusal names, and a word of its remedy. */
const gaps: [string, string, string, string][] = [
  ['no tenant_id', 'create table extra (id uuid primary key)', 'extra', 'tenant_id uuid not null'],
  [
    'a nullable tenant_id',
    'create table extra (tenant_id uuid, id uuid, unique (tenant_id, id))',
    'extra',
    'tenant_id uuid not null',
  ],
  [
    'tenant_id as text',
    'create table extra (tenant_id text not null, id uuid, primary key (tenant_id, id))',
    'extra',
    'uuid',
  ],
  [
    'no primary key',
    'create table extra (tenant_id uuid not null, id uuid)',
    'extra',
    'primary key (tenant_id',
  ],
  [
    'a primary key led by another column',
    'create table extra (tenant_id uuid not null, id uuid, primary key (id, tenant_id))',
    'extra',
    'primary key (tenant_id',
  ],
  [
    'a unique key over all tenants',
    `${good}; create unique index extra_note on extra (note)`,
    'extra_note',
    'add tenant_id to its columns',
  ],
  [
    'a unique key that only carries tenant_id along',
    `${good}; create unique index extra_note on extra (note) include (tenant_id)`,
    'extra_note',
    'add tenant_id to its columns',
  ],
  [
    'an exclusion constraint between tenants',
    'alter table notes add constraint apart exclude using btree (tenant_id with =, amount with =) where (amount > 5); alter table notes add constraint alone exclude using btree (amount with =)',
    'alone',
    'add tenant_id to its columns',
  ],
  [
    'an exclusion constraint over all tenants',
    `${good}; alter table extra add constraint apart exclude (note with =)`,
    'apart',
    'add tenant_id to its columns',
  ],
  [
    'a foreign key without tenant_id',
    `${good}; alter table notes add column extra_id uuid; create unique index extra_all on extra (tenant_id, id); alter table extra add constraint by_id unique (id); alter table notes add constraint loose foreign key (extra_id) references extra (id)`,
    'notes.loose',
    'foreign key (tenant_id',
  ],
  [
    'a crossed foreign key',
    `${good}; alter table extra add column other uuid; alter table extra add constraint crossed foreign key (other, id) references notes (tenant_id, note_id)`,
    'extra.crossed',
    'foreign key (tenant_id',
  ],
  [
    'on delete set null of tenant_id',
    `${good}; alter table extra add constraint loses foreign key (tenant_id, id) references notes on delete set null`,
    'extra.loses',
    'on delete set null (column)',
  ],
  [
    'a sequence',
    'create table extra (tenant_id uuid not null, id serial, primary key (tenant_id, id))',
    'extra',
    'gen_random_uuid',
  ],
  [
    'a materialized view',
    'create materialized view extra as select body from notes',
    'extra',
    'table or a view',
  ],
  ['a rule', 'create rule extra as on delete to notes do instead nothing', 'notes.extra', 'trigger'],
  [
    'a definer function without a fixed path',
    "create function extra() returns bigint language sql security definer as 'select count(*) from notes'",
    'extra()',
    'search_path',
  ],
  [
    'a default tenant',
    good.replace('not null,', "not null default '00000000-0000-0000-0000-000000000001',"),
    'extra',
    'default of tenant_id',
  ],
  ['a grant', `${good}; grant select on extra to public`, 'extra', 'do not grant'],
  [
    'a grant on a column',
    `${good}; grant select (body) on notes to tenancy_tenants`,
    'notes.body',
    'do not grant',
  ],
  ['a privilege beyond data', 'grant truncate on notes to tenancy_app', 'notes', 'do not grant'],
  [
    'a disabled capture trigger',
    'alter table notes disable trigger tenancy_capture',
    'notes',
    'tenancy_capture',
  ],
  [
    'a grant on the migrator’s table',
    'grant select on _migrations to tenancy_tenants',
    '_migrations',
    'do not grant',
  ],
];
const sharedGaps: typeof gaps = [
  [
    'a policy that lets everything through',
    'create policy wide on notes using (true)',
    'notes.wide',
    'drop it',
  ],
  [
    'a changed policy',
    'alter policy tenancy_rows on notes using (true)',
    'notes',
    'policies to the migrator',
  ],
  [
    'a guard for nobody',
    'drop policy tenancy_guard on notes; create policy tenancy_guard on notes as restrictive for select to tenancy_app using (tenant_id = (select tenancy.current_tenant()))',
    'notes',
    'policies to the migrator',
  ],
];
const ownGaps: typeof gaps = [
  [
    'a weaker home constraint',
    'alter table notes drop constraint tenancy_home; alter table notes add constraint tenancy_home check (tenant_id is not null)',
    'notes',
    'tenancy_home',
  ],
];

/** What the migrator puts back by itself. */
const mended = [
  'drop trigger tenancy_capture on notes',
  'create view seen as select body from notes; alter view seen set (security_invoker = false)',
];
const sharedMended = [
  'alter table notes disable row level security',
  'alter table notes no force row level security',
  'drop policy tenancy_guard on notes',
  'alter table notes alter column tenant_id drop default',
];
const ownMended = [
  'alter table notes drop constraint tenancy_home',
  'alter table notes alter column tenant_id drop default',
];

describe.each(strategies)('%s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const home = () => (isolations[strategy].ownsTables ? tenant().home : sharedHome);
  const migrate = (name: string, sql: string) =>
    world.asProvisioner(tenant(), (connection) =>
      migrateHome(
        connection,
        { home: home(), databaseId: tenant().home.databaseId, keys: world.plane.keys },
        [parseMigration(name, sql)],
      ),
    );
  const findings = () =>
    world.asProvisioner(tenant(), (connection) =>
      asRole(connection, 'tenancy_owner', () => isolations[strategy].check(connection, [home()])),
    );

  it.each([...gaps, ...(strategy === 'rls' ? sharedGaps : ownGaps)])(
    'refuses %s',
    async (_, sql, object, remedy) => {
      const file = `${++number}-gap.sql`;
      const error = await migrate(file, sql).then(
        () => undefined,
        (reason: UnprotectedHomeError) => reason,
      );
      expect(error).toMatchObject({ code: 'migration_refused', file });
      const named = error!.findings.filter((finding) => finding.object.endsWith(object));
      expect(named.map((finding) => finding.remedy).join()).toContain(remedy);
      // Nothing of it is left, and the home is as sound as before.
      expect(await findings()).toEqual([]);
    },
  );

  it.each([...mended, ...(strategy === 'rls' ? sharedMended : ownMended)])('puts back: %s', async (sql) => {
    await migrate(`${++number}-mended.sql`, sql);
    expect(await findings()).toEqual([]);
  });

  it('completes a sound migration, views and functions included', async () => {
    const applied = await migrate(
      '9500-sound.sql',
      `${good};
       create table parted (tenant_id uuid not null, day date not null, id uuid not null, primary key (tenant_id, day, id)) partition by range (day);
       create table parted_2026 partition of parted for values from ('2026-01-01') to ('2027-01-01');
       create view note_sizes as select note_id, length(body) as size from notes;
       create function note_count() returns bigint language sql stable as 'select count(*) from notes';`,
    );
    expect(applied).toEqual(['9500-sound.sql']);
    expect(await findings()).toEqual([]);
    const db = world.database(tenant());
    await db.query("insert into parted (day, id) values ('2026-05-05', gen_random_uuid())");
    expect(
      (await db.query('select count(*)::int as n from parted where tenant_id = $1', [tenant().id])).rows,
    ).toEqual([{ n: 1 }]);
    expect(
      (await db.query('select note_count()::int as n, (select count(*)::int from note_sizes) as v')).rows,
    ).toEqual([{ n: 0, v: 0 }]);
    await migrate(
      '9501-undo.sql',
      'drop table extra, parted cascade; drop view note_sizes; drop function note_count()',
    );
  });

  it('publishes no tenant id in the catalogs that every login can read', async () => {
    const published = await world.asLogin(tenant(), async (connection) => {
      const { rows } = await connection.query(
        `select pg_get_constraintdef(oid) as text from pg_constraint
         union all select pg_get_expr(adbin, adrelid) from pg_attrdef
         union all select nspname from pg_namespace union all select rolname from pg_roles union all select datname from pg_database`,
      );
      return rows.map((row) => row.text as string).join('\n');
    });
    const ids = strategies.flatMap((each) => Object.values(world.tenants[each]).map(({ id }) => id));
    for (const id of ids) {
      expect(published).not.toContain(id);
      expect(published).not.toContain(id.replaceAll('-', ''));
    }
  });

  it('sees what was planted behind the migrator’s back', async () => {
    await world.asProvisioner(tenant(), async (connection) => {
      await connection.query('begin; set local role tenancy_owner');
      await connection.query(`grant truncate on ${home().schema}.notes to ${home().login}`);
      expect(await isolations[strategy].check(connection, [home()])).toMatchObject([
        { finding: expect.stringContaining('TRUNCATE') },
      ]);
      await connection.query('rollback');
    });
  });
});
