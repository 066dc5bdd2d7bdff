import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { isolations } from '../../../functions/lib/isolation/isolation.ts';
import type { UnprotectedHomeError } from '../../../functions/lib/migrations/apply.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { rehearse } from '../../../functions/lib/migrations/reference.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { gaps, good, mended, ownGaps, ownMended, sharedGaps, sharedMended, strays } from './gaps.ts';
import { migrate as migrateTenant, targetOf } from './target.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

describe.each(strategies)('%s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const home = () => targetOf(world, tenant()).home;
  /** `isSound`: only what the migration changes is looked at. */
  const migrate = (name: string, sql: string, isSound = true) =>
    migrateTenant(world, tenant(), [parseMigration(name, sql)], { isSound });
  const findings = () =>
    world.asProvisioner(tenant(), (connection) =>
      asRole(connection, 'tenancy_owner', () => isolations[strategy].check(connection, [home()])),
    );

  it.each([...gaps, ...strays, ...(strategy === 'rls' ? sharedGaps : ownGaps)])(
    'refuses %s',
    async (_, sql, object, remedy) => {
      const file = `${++number}-gap.sql`;
      for (const isSound of [true, false]) {
        const error = await migrate(file, sql.replaceAll('{login}', home().login), isSound).then(
          () => undefined,
          (reason: UnprotectedHomeError) => reason,
        );
        expect(error).toMatchObject({ code: 'migration_refused', file });
        const named = error!.findings.filter((finding) => finding.object.endsWith(object));
        expect(named.map((finding) => finding.remedy).join()).toContain(remedy);
      }
      // Nothing of it is left, and the home is as sound as before.
      expect(await findings()).toEqual([]);
    },
  );

  it('tells of all files at once what they would leave, and of none what a later one mends', async () => {
    const table = (name: string, key: string) =>
      `create table ${name} (tenant_id uuid not null, a int, primary key (${key}))`;
    const files = [
      table('gap_one', 'a'),
      table('gap_none', 'tenant_id, a'),
      table('gap_two', 'a'),
      table('gap_mended', 'a'),
      'drop table gap_mended',
    ].map((sql) => parseMigration(`${++number}-gap.sql`, sql));
    const [one, , two] = files.map(({ name }) => name.replace('.', '\\.'));
    const had = world.release.home;
    const target = { ...targetOf(world, tenant()), isSound: true };
    await expect(
      world.asProvisioner(tenant(), (connection) => rehearse(connection, target, { had, fresh: files })),
    ).rejects.toThrow(
      new RegExp(`^${one} would [^]*gap_one[^]*^${two} would (?![^]*gap_mended)[^]*gap_two`, 'm'),
    );
    // What comes first of a home by itself is applied as far as it can be.
    const error = await migrateTenant(world, tenant(), files, { isSound: true }).catch((reason) => reason);
    expect(error.message).toMatch(
      new RegExp(`^${one} would [^]*gap_one[^]*^All files together would (?![^]*gap_mended)[^]*gap_two`, 'm'),
    );
    expect(await findings()).toEqual([]);
  });

  it('takes no schema for its own that somebody else makes meanwhile', async () => {
    const schema = `meanwhile_${strategy}`;
    await world.asProvisioner(tenant(), (other) =>
      world.asProvisioner(tenant(), async (connection) => {
        await connection.query('begin; set local role tenancy_owner; select pg_current_xact_id()');
        await asRole(other, 'tenancy_owner', () => other.query(`create schema ${schema}`));
        const { rows } = await connection.query('select * from tenancy.audit_strays($1)', [[home().schema]]);
        await connection.query('rollback');
        await asRole(other, 'tenancy_owner', () => other.query(`drop schema ${schema}`));
        expect(rows).toEqual([]);
      }),
    );
  });

  it('says of a table that lacks tenant_id what helps, and nothing that follows from it, all of a kind together', async () => {
    const error: UnprotectedHomeError = await migrate(
      `${++number}-bare.sql`,
      'create table bare (id int primary key); create table bald (id int)',
    ).catch((reason) => reason);
    const { schema } = home();
    expect(error.message.split('\n').slice(1)).toEqual([
      `  ${schema}.bare, ${schema}.bald: has no column \`tenant_id uuid not null\`. declare \`tenant_id uuid not null\` as its first column, or begin the file with \`-- shared\` when the table is for reading only.`,
      `  ${schema}.bare, ${schema}.bald: has no primary key that starts with tenant_id. write \`primary key (tenant_id, …)\`.`,
      `  ${schema}.bare_pkey: is unique over all tenants: one could probe for another's values. add tenant_id to its columns.`,
    ]);
  });

  it('takes the sequences of identity columns, and of tables for reading only', async () => {
    await migrate(
      `${++number}-sequences.sql`,
      `${good}; alter table extra add column n bigint generated always as identity; drop table extra`,
    );
    const lands =
      "-- shared\ncreate table lands (id serial primary key, name text); insert into lands (name) values ('x')";
    await migrate(`${++number}-lands.sql`, lands);
    expect(await findings()).toEqual([]);
    await migrate(`${++number}-undo.sql`, '-- shared\ndrop table lands');
  });

  // A database of its own holds no other.
  const neighbours = [
    ['writes to', 'insert into {other} (tenant_id, body) select tenant_id, body from notes'],
    ['reads', 'create view extra with (security_invoker = true) as select body from {other}'],
    ['reads in passing', 'do $$ begin perform from {other}; end $$'],
    ['grants', 'grant select on {other} to {login}'],
  ];
  it.each(strategy === 'database' ? [] : neighbours)(
    'refuses a file that %s the table of another home',
    async (_, sql) => {
      const other = `${world.tenants.schema.b.home.schema}.notes`;
      const text = sql!.replaceAll('{other}', other).replaceAll('{login}', home().login);
      for (const isSound of [true, false])
        await expect(migrate(`${++number}-stray.sql`, text, isSound)).rejects.toMatchObject({
          code: 'migration_refused',
          message: expect.stringContaining(other),
        });
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
