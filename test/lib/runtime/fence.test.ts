import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

/**
 * A writer that has to wait for the mover's lock must then see what the mover has committed. Three natural ways of
 * writing the check do not: they are kept here so that nobody makes them again.
 */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const lockKey = `select lock_key from tenancy.homes where home_id = $1`;

/** The mover takes the fence, the writer comes and waits, the mover switches the home away and commits. */
async function race(tenant: TestTenant, begin: string, check: string, values: unknown[]): Promise<string> {
  // Opened first: the writer waits for 100 ms at most.
  return world.asProvisioner(tenant, (mover) =>
    world.asProvisioner(tenant, (watcher) => switchUnder(tenant, mover, watcher, begin, check, values)),
  );
}

async function switchUnder(
  tenant: TestTenant,
  mover: ControlConnection,
  watcher: ControlConnection,
  begin: string,
  check: string,
  values: unknown[],
): Promise<string> {
  await mover.query('begin; set local role tenancy_keeper');
  const { rows } = await mover.query(lockKey, [tenant.home.homeId]);
  await mover.query('select pg_advisory_xact_lock($1)', [rows[0]!.lock_key]);
  const writer = world.asLogin(tenant, async (connection) => {
    await connection.query(begin);
    return connection.query(check, values).then(
      () => 'admitted',
      (error) => error.code as string,
    );
  });
  await waitsForTheFence(watcher);
  await mover.query("update tenancy.homes set epoch = epoch + 1, state = 'moved' where home_id = $1", [
    tenant.home.homeId,
  ]);
  await mover.query('commit');
  const outcome = await writer;
  await asRole(mover, 'tenancy_keeper', () =>
    mover.query("update tenancy.homes set epoch = epoch - 1, state = 'open' where home_id = $1", [
      tenant.home.homeId,
    ]),
  );
  return outcome;
}

async function waitsForTheFence(connection: ControlConnection): Promise<void> {
  for (;;) {
    const { rows } = await connection.query(
      "select from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())",
    );
    if (rows.length > 0) return;
    await setTimeout(2);
  }
}

const begin = 'begin isolation level read committed read write';

describe.each(strategies)('%s', (strategy) => {
  const tenant = () => world.tenants[strategy].a;

  it('refuses a writer that waited while its home was switched away', async () => {
    let outcome = 'TN008';
    // On a busy machine the mover may be too slow for a writer's 100 ms, which then proves nothing.
    for (let attempt = 0; outcome === 'TN008' && attempt < 10; attempt += 1)
      outcome = await race(tenant(), begin, 'select tenancy.enter($1)', [world.context(tenant())]);
    expect(outcome).toBe('TN004');
  });

  const body = (volatility: string, statements: string) => `
    create function tenancy.broken_check(home uuid, expected bigint) returns void
    language plpgsql ${volatility} security definer set search_path = pg_catalog, pg_temp as $$
    declare fence bigint; now_epoch bigint;
    begin
      ${statements}
      if now_epoch <> expected then raise exception 'stale' using errcode = 'TN004'; end if;
    end $$;
    grant execute on function tenancy.broken_check(uuid, bigint) to public`;
  const twoStatements = `
    select lock_key into fence from tenancy.homes where home_id = home;
    perform pg_advisory_xact_lock_shared(fence);
    select epoch into now_epoch from tenancy.homes where home_id = home;`;
  const oneStatement = `
    select h.epoch into now_epoch from tenancy.homes h, lateral pg_advisory_xact_lock_shared(h.lock_key) where h.home_id = home;`;

  it.each([
    ['a STABLE function', begin, body('stable', twoStatements)],
    ['lock and read in one statement', begin, body('volatile', oneStatement)],
    ['REPEATABLE READ', 'begin isolation level repeatable read read write', body('volatile', twoStatements)],
  ])('is not fenced by %s', async (_, how, ddl) => {
    const create = (sql: string) =>
      world.asProvisioner(tenant(), (connection) =>
        asRole(connection, 'tenancy_keeper', () => connection.query(sql)),
      );
    await create(ddl.replaceAll('where home_id = home', 'where homes.home_id = home'));
    try {
      expect(await race(tenant(), how, 'select tenancy.broken_check($1, 1)', [tenant().home.homeId])).toBe(
        'admitted',
      );
    } finally {
      await create('drop function tenancy.broken_check(uuid, bigint)');
    }
  });
});
