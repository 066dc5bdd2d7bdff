import { afterEach, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { planMove } from '../../../functions/lib/lifecycle/move-plan.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, currentDatabase, homeOf, step, untilSwitched } from '../lifecycle/move.support.ts';

const unlessMoved =
  "when (split_part(current_setting('tenancy.context', true), '.', 7) is distinct from 'move')";
/** Triggers that change a row, and that keep what was deleted; of all firing modes, on a partition too. */
const tablesWith = (condition: string) =>
  parseMigration(
    '9200-triggers.sql',
    `create table things (tenant_id uuid not null, thing_id integer not null, name text not null, touched timestamptz, primary key (tenant_id, thing_id))
       partition by range (thing_id);
     create table things_few partition of things for values from (0) to (5);
     create table things_many partition of things default;
     create table gone (tenant_id uuid not null, gone_id uuid not null default gen_random_uuid(), thing_id integer not null, primary key (tenant_id, gone_id));
     create table counted (tenant_id uuid not null, n integer not null, primary key (tenant_id, n));
     create function touch() returns trigger language plpgsql as $$ begin new.touched := clock_timestamp(); return new; end $$;
     create trigger touch before insert or update on things for each row ${condition} execute function touch();
     create function note_gone() returns trigger language plpgsql as $$ begin insert into gone (tenant_id, thing_id) values (old.tenant_id, old.thing_id); return null; end $$;
     create trigger note_gone after delete on things for each row ${condition} execute function note_gone();
     create trigger always after delete on counted for each row ${condition} execute function note_gone();
     alter table counted disable trigger always;
     create trigger on_partition before insert on things_few for each row ${condition} execute function touch();
     alter table things_few enable always trigger on_partition;
     alter table things_many disable trigger touch`,
  );

let world: World;
afterEach(() => world?.close());
const start = async (condition: string) => {
  world = await startWorld({ migrations: [tablesWith(condition)] });
};

const here = (tenant: TestTenant) => currentDatabase(world, tenant);

async function content(tenant: TestTenant) {
  const db = await here(tenant);
  const things = await db.query(sql`select thing_id, name, touched from things order by 1`);
  const gone = await db.query(sql`select thing_id from gone order by 1`);
  return [things.rows, gone.rows];
}

async function modes(tenant: TestTenant) {
  const { database, schema } = await homeOf(world, tenant);
  const { rows } = await withConnection(world.superuser(database), (connection) =>
    connection.query(
      `select c.relname, g.tgname, g.tgenabled from pg_trigger g join pg_class c on c.oid = g.tgrelid
        where not g.tgisinternal and c.relnamespace = $1::regnamespace and c.relname ~ '^(things|counted)' order by 1, 2`,
      [schema],
    ),
  );
  return rows;
}

it.each([
  ['rls', 'schema'],
  ['schema', 'database'],
  ['database', 'rls'],
] as const)(
  'triggers do not fire on what is carried from %s to %s, and do afterwards as before',
  async (from, to) => {
    await start(unlessMoved);
    const tenant = await world.addTenant(from);
    const before = await modes(tenant);
    expect(new Set(before.map(({ tgenabled }) => tgenabled))).toEqual(new Set(['O', 'A', 'D']));
    await (await here(tenant)).query(
      sql`insert into things (thing_id, name) select n, 'first ' || n from generate_series(1, 10) n`,
    );
    const operation = await begin(world, tenant.slug, to);
    const change = async () =>
      (await here(tenant)).query(sql`update things set name = name || '!' where thing_id in (2, 7)`);
    await untilSwitched(world, operation, async (_, run) => {
      await change();
      return run();
    });
    expect(await modes(tenant)).toEqual(before);
    await (await here(tenant)).query(sql`delete from things where thing_id = 3`);
    await change();
    await step(world, operation, 'follow');
    const written = await content(tenant);
    expect(written[1]).toEqual([{ thing_id: 3 }]);
    await step(world, operation, 'reverse');
    expect(await content(tenant)).toEqual(written);
    expect(await modes(tenant)).toEqual(before);
    await step(world, operation, 'complete');
    await (await here(tenant)).query(sql`delete from things where thing_id = 4`);
    expect((await content(tenant))[1]).toHaveLength(2);
  },
  60_000,
);

it('nothing is left in shared tables once a move has ended', async () => {
  await start(unlessMoved);
  const tenant = await world.addTenant('rls');
  await (await here(tenant)).query(
    sql`insert into things (thing_id, name) select n, 'first ' || n from generate_series(1, 10) n`,
  );
  const operation = await begin(world, tenant.slug, 'schema');
  await untilSwitched(world, operation);
  // From a migration that a move has held up no longer: it fires on what the clean-up deletes.
  await withConnection(world.superuser('tenantry'), (connection) =>
    connection.query(
      `create trigger late after delete on shared.things for each row execute function shared.note_gone()`,
    ),
  );
  await step(world, operation, 'complete');
  const { rows } = await withConnection(world.superuser('tenantry'), (connection) =>
    connection.query(
      `drop trigger late on shared.things; select from shared.gone where tenant_id = '${tenant.id}'`,
    ),
  );
  expect(rows).toEqual([]);
}, 60_000);

it('shared tables with triggers that a move would set off are refused, in the plan too', async () => {
  await start('');
  for (const [from, to] of [
    ['rls', 'schema'],
    ['schema', 'rls'],
  ] as const) {
    const tenant = await world.addTenant(from);
    const { blocks } = await world.asProvisioner('catalog', (catalog) =>
      planMove(world.plane, catalog, { slug: tenant.slug, to, placement: 'shared-cluster' }),
    );
    expect(blocks).toEqual([
      expect.stringContaining(
        "things.note_gone, things.touch, things_few.on_partition. Give each, by a migration, the condition when (split_part(current_setting('tenancy.context'",
      ),
    ]);
    const operation = await begin(world, tenant.slug, to);
    await expect(step(world, operation, 'prepare')).rejects.toMatchObject({ code: 'move_refused' });
    await step(world, operation, 'cancel', { failedStep: 'prepare' });
  }
  const apart = await world.addTenant('schema');
  const { blocks } = await world.asProvisioner('catalog', (catalog) =>
    planMove(world.plane, catalog, { slug: apart.slug, to: 'database', placement: 'shared-cluster' }),
  );
  expect(blocks).toEqual([]);
}, 60_000);
