import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { beginOffboarding, offboardSteps } from '../../../functions/lib/lifecycle/offboard.ts';
import { readOperation } from '../../../functions/lib/lifecycle/operations.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

/** A log that comes before what is logged and one that comes after, and a log of the first log. */
const logs = parseMigration(
  '9001-logs.sql',
  `create table a_log (tenant_id uuid not null, id uuid not null default gen_random_uuid(), what text, primary key (tenant_id, id));
   create table b_log (like a_log including all);
   create table films (tenant_id uuid not null, film_id uuid not null default gen_random_uuid(), title text, primary key (tenant_id, film_id));
   create table rentals (tenant_id uuid not null, rental_id integer not null, film_id uuid not null, primary key (tenant_id, rental_id),
     foreign key (tenant_id, film_id) references films (tenant_id, film_id));
   create table payments (tenant_id uuid not null, paid_on date not null, rental_id integer not null, primary key (tenant_id, paid_on, rental_id)) partition by range (paid_on);
   create table payments_2026 partition of payments for values from ('2026-01-01') to ('2027-01-01');
   alter table payments_2026 add foreign key (tenant_id, rental_id) references rentals (tenant_id, rental_id);
   create table z_log (like a_log including all);
   create table legal (like a_log including all);
   create table strict (like a_log including all);
   create table silent (like a_log including all);
   create table own_log (like a_log including all);
   create function log_it() returns trigger language plpgsql as $$ begin
     execute format('insert into %I (tenant_id, what) values ($1, $2)', tg_argv[0]) using coalesce(new.tenant_id, old.tenant_id), tg_op;
     return null; end $$;
   create trigger log_a after insert or delete on films for each row execute function log_it('a_log');
   create trigger log_b after delete on a_log for each row execute function log_it('b_log');
   create trigger log_z after delete on b_log for each row execute function log_it('z_log');
   create function forbid() returns trigger language plpgsql as $$ begin
     raise exception 'the row % must stay', old.what; end $$;
   create trigger forbid before delete on legal for each row execute function forbid();
   create function forbid_by_code() returns trigger language plpgsql as $$ begin
     raise exception 'the row % must stay', old.what using errcode = 'AC001'; end $$;
   create trigger forbid_by_code before delete on strict for each row execute function forbid_by_code();
   create function skip() returns trigger language plpgsql as $$ begin return null; end $$;
   create trigger skip before delete on silent for each row execute function skip();
   create trigger log_own after delete on own_log for each row execute function log_it('own_log');`,
);

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [logs] });
}, 120_000);
afterAll(() => world?.close());

const catalog = <T>(work: Parameters<typeof world.asProvisioner<T>>[1]) =>
  world.asProvisioner('catalog', work);
const run = (operation: string, step: string, input = {}) =>
  runStep(
    { plane: world.plane, instances: { status: async () => undefined }, clock: Date.now },
    { operation, step, input },
    ['offboard'],
    offboardSteps,
  );
const begin = async ({ id, slug }: TestTenant) =>
  (
    await catalog((connection) =>
      beginOffboarding(connection, id, { slug, graceSeconds: 0, exportTo: undefined }),
    )
  ).operationId;

async function offboarded(tenant: TestTenant) {
  const operation = await begin(tenant);
  for (const step of ['suspend', 'beginRemoval', 'removeHome', 'removeSecrets', 'bury', 'check'])
    await run(operation, step);
  return catalog((connection) => readOperation(connection, operation));
}

it.each(strategies)(
  'leaves nothing of a %s tenant that its triggers write while it goes',
  async (strategy) => {
    const tenant = await world.addTenant(strategy);
    await world.database(tenant).query("insert into films (title) values ('x'), ('y')");
    expect(await offboarded(tenant)).toMatchObject({ state: 'done', result: { left: [] } });
  },
  60_000,
);

it.each(strategies)(
  'leaves nothing of a %s tenant whose rows point at others by the keys of a partition alone',
  async (strategy) => {
    const tenant = await world.addTenant(strategy);
    const db = world.database(tenant);
    await db.query("insert into films (title) values ('x')");
    await db.query('insert into rentals (rental_id, film_id) select 1, film_id from films');
    await db.query("insert into payments (paid_on, rental_id) values ('2026-05-05', 1)");
    expect(await offboarded(tenant)).toMatchObject({ state: 'done', result: { left: [] } });
  },
  60_000,
);

describe('stops before the tombstone, and says at which table, where the schema', () => {
  it.each([
    ['forbids it', 'legal', 'forbid', 'SQLSTATE P0001'],
    ['forbids it by a SQLSTATE of its own', 'strict', 'forbid_by_code', 'SQLSTATE AC001'],
    ['ignores it in silence', 'silent', 'skip', 'they are still there'],
    ['writes a row for each that goes', 'own_log', 'log_own', 'there again'],
  ])(
    '%s',
    async (_, table, trigger, why) => {
      const tenant = await world.addTenant('rls');
      await world.database(tenant).query(`insert into ${table} (what) values ('secret')`);
      const operation = await begin(tenant);
      for (const step of ['suspend', 'beginRemoval']) await run(operation, step);
      const error = (await run(operation, 'removeHome').catch((error) => error)) as Error;
      expect(error).toMatchObject({
        name: 'NotRemoved',
        message: expect.stringContaining(`shared.${table}`),
      });
      expect(error.message).toContain(why);
      expect(error.message).not.toContain('secret');
      await run(operation, 'recordFailure', {
        failedStep: 'removeHome',
        failure: { Error: error.name, Cause: JSON.stringify({ errorMessage: error.message }) },
      });
      const { state, reason } = await catalog((connection) => readOperation(connection, operation));
      expect([state, reason]).toEqual(['failed', error.message]);
      const { rows } = await catalog((connection) =>
        connection.query('select status from catalog.tenants where tenant_id = $1', [tenant.id]),
      );
      expect(rows).toEqual([{ status: 'offboarding' }]);
      // As the operator is told to do.
      await world.asProvisioner(tenant, (connection) =>
        connection.query(
          `begin; set local role tenancy_owner; drop trigger ${trigger} on shared.${table}; commit`,
        ),
      );
      expect(await offboarded(tenant)).toMatchObject({ state: 'done', result: { left: [] } });
    },
    60_000,
  );
});

it.each(strategies)('keeps nothing of what failures have said of a %s tenant’s rows', async (strategy) => {
  const tenant = await world.addTenant(strategy);
  const said = `invalid input syntax for type integer: "said of ${tenant.slug}"`;
  const left = '00000000-0000-4000-8000-00000000000a';
  // A move that failed, one of a batch; a run that the home could not take, and the home before this one.
  await catalog((connection) =>
    connection.query(
      `begin;
       insert into catalog.operations (operation_id, kind, tenant_id, state, input, request_digest, reason) values
         (gen_random_uuid(), 'move', '${tenant.id}', 'failed', '{"homeId": "${left}", "strategy": "rls"}', '', '${said}'),
         (gen_random_uuid(), 'batch', null, 'failed', '{}', '${tenant.slug}', null),
         (gen_random_uuid(), 'migrate', null, 'failed', '{}', '${tenant.slug}', null);
       insert into catalog.operation_steps (operation_id, step, attempt, reason)
         select operation_id, 'copy', 1, '${said}' from catalog.operations where tenant_id = '${tenant.id}';
       insert into catalog.moves (operation_id, tenant_id, source_home, target_home, window_seconds, phase)
         select operation_id, tenant_id, '${left}', '${left}', 0, 'completed' from catalog.operations where tenant_id = '${tenant.id}';
       insert into catalog.move_batches (operation_id, concurrency, stops_on_failure)
         select operation_id, 1, false from catalog.operations where request_digest = '${tenant.slug}' and kind = 'batch';
       insert into catalog.move_batch_tenants (operation_id, tenant_id, place, state, reason)
         select operation_id, '${tenant.id}', 1, 'failed', '${said}' from catalog.operations where request_digest = '${tenant.slug}' and kind = 'batch';
       insert into catalog.migration_runs (operation_id, version, digest, tolerated)
         select operation_id, '0001-x', '', 0 from catalog.operations where request_digest = '${tenant.slug}' and kind = 'migrate';
       insert into catalog.migration_targets (operation_id, target_id, kind, ring, place, version, digest, state, reason)
         select operation_id, target, 'home', 1, '', '0001-x', '', 'quarantined', '${said}'
           from catalog.operations, unnest(array['${left}', '${tenant.home.homeId}']::uuid[]) target
          where request_digest = '${tenant.slug}' and kind = 'migrate';
       commit`,
    ),
  );
  const quoting = () =>
    catalog(async (connection) => {
      const { rows } = await connection.query<{ found: number }>(
        `select count(*)::integer as found from (
           select reason from catalog.operations union all select reason from catalog.operation_steps
           union all select reason from catalog.move_batch_tenants union all select reason from catalog.migration_targets) r
          where reason = $1`,
        [said],
      );
      return rows[0]!.found;
    });
  expect(await quoting()).toBe(5);
  expect(await offboarded(tenant)).toMatchObject({ state: 'done' });
  expect(await quoting()).toBe(0);
});
