import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { sql } from '../../functions/lib/database/sql.ts';
import type { Row } from '../../functions/lib/database/types.ts';
import { RetryableError } from '../../functions/lib/errors.ts';
import { loginSecretName } from '../../functions/lib/isolation/credentials.ts';
import type { Strategy } from '../../functions/lib/tenant/tenant.ts';
import { endpoint } from '../support/cluster.ts';
import { type Pgbouncer, pgbouncerIsInstalled, startPgbouncer } from '../support/pgbouncer.ts';
import { limits, modes, routeOf, startWorld, type TestTenant, type World } from '../support/world.ts';

/** Through a transaction pooler, as through RDS Proxy: server connections change hands between calls of many tenants. */
const calls = 1_000;
const serverConnections = 5;

if (!pgbouncerIsInstalled)
  process.stderr.write(
    '\n*** SKIPPED: the tests through a pooler need PgBouncer: apt-get install pgbouncer ***\n',
  );

describe.skipIf(!pgbouncerIsInstalled).each([
  ['rls', 200],
  ['schema', 40],
] as [Strategy, number][])('%s: %i tenants', (strategy, number) => {
  let world: World;
  let pooler: Pgbouncer;
  let tenants: TestTenant[];
  const passwords: Record<string, string> = {};

  beforeAll(async () => {
    world = await startWorld();
    tenants = [];
    for (let index = 0; index < number; index += 1) tenants.push(await world.addTenant(strategy));
    for (const { home } of tenants)
      passwords[home.login] ??= JSON.parse(
        await world.secrets.read(loginSecretName(home.clusterId, home.login)),
      ).password;
    pooler = await startPgbouncer({ server: world.cluster.server, logins: passwords, serverConnections });
  });
  afterAll(async () => {
    await pooler?.close();
    await world?.close();
  });

  it.each(modes)(
    `keeps ${calls} interleaved calls apart on ${serverConnections} server connections, %s round trip(s)`,
    async (roundTrips) => {
      const access = world.access({ maxConnections: 24 });
      const through = (tenant: TestTenant) => ({ ...routeOf(tenant), host: pooler.host, port: pooler.port });
      const wrong: unknown[] = [];
      let refused = 0;

      const one = async (index: number) => {
        const tenant = tenants[(index * 7_919) % tenants.length]!;
        const db = access.database(
          tenant.principal,
          through(tenant),
          limits('w', { roundTrips, deadline: Date.now() + 60_000 }),
        );
        // Every tenth call leaves behind what a careless or hostile tool would: an error, a setting of the session.
        if (index % 10 === 3) await db.query('select 1 / 0').catch(() => (refused += 1));
        if (index % 10 === 7)
          await db
            .query(
              sql`select set_config('search_path', 'shared', false), set_config('tenancy.tenant', ${tenants[0]!.id}, false),
                       set_config('statement_timeout', '1', false), set_config('row_security', 'off', false)`,
            )
            // A millisecond is also too short for its own COMMIT at times.
            .catch(() => {});
        const work = () =>
          db.query(sql`
        with mine as (insert into notes (body) values (${`${roundTrips} ${index}`}) returning tenant_id)
        select tenant_id from notes union all select tenant_id from mine`);
        // On a machine with much else to do a millisecond may end the way in again and again, and a new login may wait too
        // long for a server connection: then nothing was changed.
        const served = (left: number): ReturnType<typeof work> =>
          work().catch((error) => {
            if (!(error instanceof RetryableError) || left === 0) throw error;
            return served(left - 1);
          });
        const { rows } = await served(5);
        if (rows.length === 0 || rows.some((row) => row.tenant_id !== tenant.id)) wrong.push({ index, rows });
      };
      const queue = Array.from({ length: calls }, (_, index) => index);
      await Promise.all(
        Array.from({ length: 24 }, async () => {
          for (let index = queue.shift(); index !== undefined; index = queue.shift()) await one(index);
        }),
      );
      expect(wrong).toEqual([]);
      expect(refused).toBe(calls / 10);

      const { rows } = await world.asProvisioner(tenants[0]!, (connection) =>
        connection.query(
          `select count(*)::int as open from pg_stat_activity where datname = $1 and usename = any ($2) and application_name <> ''`,
          [tenants[0]!.home.database, Object.keys(passwords)],
        ),
      );
      expect(rows[0]!.open).toBeLessThanOrEqual(serverConnections);
    },
  );

  it('leaves no tenant in any server connection', async () => {
    const { home } = tenants[0]!;
    const at = { host: pooler.host, port: pooler.port, database: home.database, login: home.login };
    // The millisecond that a hostile call left in a session is at times too short for this: then it has not been looked at.
    const look = (): Promise<Row> =>
      withConnection(endpoint(at, passwords[home.login]!), (connection) =>
        connection.query(
          `select current_setting('tenancy.context', true) as context, current_setting('tenancy.tenant', true) as tenant,
                  (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks`,
          [],
        ),
      ).then(
        ({ rows }) => rows[0]!,
        (error) => {
          if (error.code === '57014') return look();
          throw error;
        },
      );
    const left = await Promise.all(Array.from({ length: serverConnections * 4 }, look));
    for (const { context, locks } of left) expect([context || '', locks]).toEqual(['', 0]);
    // A setting that a hostile call made for its session may stay until the next `enter`, which resets it; it is never a context.
    expect(left.every(({ tenant }) => !tenant || tenant === tenants[0]!.id)).toBe(true);
  });
});
