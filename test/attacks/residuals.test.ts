import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../functions/lib/isolation/homes.ts';
import { preparePlace } from '../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../functions/lib/migrations/install.ts';
import { corpus } from '../../infra/local/prove/corpus.ts';
import { closeTargets, prepareTargets, tryAttack } from '../../infra/local/prove/prove.ts';
import { strategies, type TestTenant, type World } from '../support/world.ts';
import { entered, partyOf, startAttackedWorld } from './support.ts';

/**
 * What PostgreSQL grants to every role, so that no rights of a master's can take it away. Each test shows that it is still
 * so: when one fails, something has become better, and SECURITY.md and the corpus are to be corrected.
 */
let world: World;

beforeAll(async () => {
  world = await startAttackedWorld();
});
afterAll(() => world?.close());

const residuals = corpus.flatMap((theme) =>
  theme.attacks.flatMap((attack) => (attack.residual ? [{ theme, attack, name: attack.name }] : [])),
);

/** What an operator does: the installation again. */
async function deployAgain(): Promise<void> {
  const { host, port } = world.cluster.server;
  const cluster = {
    kind: 'shared',
    region: 'eu-west-1',
    host,
    port,
    adminHost: host,
    adminPort: port,
  } as const;
  const { clusterId } = world.plane.catalog;
  await preparePlace(world.plane, { ...cluster, clusterId }, tenantsDatabase, world.cluster.master);
}

describe.each(residuals)('$name', ({ theme, attack }) => {
  const attacked = async (attacker: TestTenant, victim: TestTenant, way: 'simple' | 'product') => {
    const targets = await prepareTargets(world.plane.keys, [await partyOf(world, victim)]);
    try {
      return await tryAttack(
        world.plane.keys,
        await partyOf(world, attacker),
        targets[0]!,
        'canaries',
        theme,
        attack,
        way,
      );
    } finally {
      await closeTargets(targets);
    }
  };

  it('reaches a neighbour on the same login, and the next deployment ends it', async () => {
    const { a, b } = world.tenants.rls;
    expect(await attacked(a, b, 'simple')).toMatchObject({ outcome: 'residual' });
    await deployAgain();
    const { rows } = await world.database(b).query('select count(*)::int as own from canaries');
    expect(rows).toEqual([{ own: 3 }]);
  });

  it('reaches nobody with a login of his own', async () => {
    for (const strategy of strategies)
      for (const other of strategies.filter((other) => other !== 'rls' || strategy !== 'rls')) {
        // A new attacker each time: it locks itself out.
        const attacker = await world.addTenant(strategy);
        const finding = await attacked(attacker, world.tenants[other].b, 'simple');
        expect([strategy, other, finding?.outcome ?? 'held']).toEqual([strategy, other, 'held']);
        await deployAgain();
      }
  });

  if (attack.name !== 'ends the sessions of its own login')
    it('does not get past the statements that the product sends', async () => {
      const { a, b } = world.tenants.rls;
      expect((await attacked(a, b, 'product'))?.outcome ?? 'held').toBe('held');
    });
});

describe("the fence's advisory lock", () => {
  /** What the attacker sees while the victim writes, and then holds for as long as it likes. */
  async function holdFence(attacker: TestTenant, victim: TestTenant): Promise<string> {
    return world.asLogin(victim, (writer) =>
      world.asLogin(attacker, async (thief) => {
        await entered(world, writer, victim);
        const { rows } = await thief.query<{ key: string }>(
          `select ((classid::bigint << 32) | objid::bigint)::text as key from pg_locks
            where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
        );
        await writer.query('commit');
        for (const { key } of rows) await thief.query('select pg_advisory_lock($1)', [key]);
        return entered(world, writer, victim).then(
          () => 'admitted',
          ({ code }) => code,
        );
      }),
    );
  }

  it.each([
    ['rls', 'rls'],
    ['rls', 'schema'],
    ['schema', 'rls'],
    ['schema', 'schema'],
  ] as const)('of %s can keep writers of %s out for as long as it is held', async (attacker, victim) => {
    const outcome = await holdFence(world.tenants[attacker].a, world.tenants[victim].b);
    // Readers take no lock; writers are told to try again, and nothing of theirs is lost.
    expect(outcome).toBe('TN008');
    const { rows } = await world
      .database(world.tenants[victim].b, { mode: 'r' })
      .query('select count(*)::int > 0 as there from canaries');
    expect(rows).toEqual([{ there: true }]);
  });

  it('of a database of its own is out of reach', async () => {
    for (const strategy of strategies)
      expect(await holdFence(world.tenants[strategy].a, world.tenants.database.b)).toBe('admitted');
  });
});

describe('locks that are taken before rights are asked for', () => {
  it('stop the calls of a database, behind a lock of the attacker’s other session', async () => {
    const { a, b } = world.tenants.schema;
    await world.asLogin(a, (holder) =>
      world.asLogin(a, async (blocker) => {
        await entered(world, holder, a);
        await blocker.query('set lock_timeout = 0');
        const refused = blocker
          .query('create rule mine as on insert to tenancy.homes do nothing')
          .catch(({ code }) => code);
        for (let waiting = false; !waiting; ) {
          const { rows } = await holder.query<{ waiting: boolean }>(
            "select exists (select from pg_locks where relation = 'tenancy.homes'::regclass and mode = 'AccessExclusiveLock') as waiting",
          );
          waiting = rows[0]!.waiting;
        }
        const call = world.asLogin(b, async (connection) => {
          await connection.query('set lock_timeout = 100');
          await connection.query('begin isolation level read committed');
          // What `enter` does, but for its RESET ALL: it would wait as long as the login's lock_timeout.
          return connection
            .query('select * from tenancy.verify($1)', [world.context(b)])
            .catch(({ code }) => code);
        });
        expect(await call).toBe('55P03');
        await holder.query('commit');
        expect(await refused).toBe('42501');
      }),
    );
  });

  it('keep migrations from a table of another home, by its number', async () => {
    const { a, b } = world.tenants.schema;
    await world.asLogin(a, async (connection) => {
      await entered(world, connection, a);
      await connection.query('savepoint here');
      const table = `(select oid from pg_class where relname = 'notes' and relnamespace = '${b.home.schema}'::regnamespace)`;
      await expect(connection.query(`select nextval(${table}::regclass)`)).rejects.toMatchObject({
        code: '42809',
      });
      await connection.query('rollback to here');
      const { rows } = await connection.query(
        `select mode from pg_locks where pid = pg_backend_pid() and relation = ${table}`,
      );
      expect(rows).toEqual([{ mode: 'RowExclusiveLock' }]);
    });
    // It keeps nobody from rows.
    await world.database(b).query("insert into notes (body) values ('another')");
  });
});

it('reads a PL/pgSQL function’s constants once in a session, by the settings of whoever calls first', async () => {
  const { a, b } = world.tenants.rls;
  await world.asProvisioner(a, (connection) =>
    asRole(connection, 'tenancy_owner', () =>
      connection.query(`
        create function shared.a_day() returns text language plpgsql as $$ begin return to_char('01/02/2020'::date, 'Mon'); end $$;
        grant execute on function shared.a_day() to tenancy_app`),
    ),
  );
  await world.asLogin(a, async (connection) => {
    await entered(world, connection, a);
    await connection.query("select set_config('datestyle', 'ISO, DMY', true), shared.a_day()");
    await connection.query('commit');
    await entered(world, connection, b);
    expect((await connection.query('select shared.a_day() as day')).rows).toEqual([{ day: 'Feb' }]);
  });
  expect((await world.database(b).query('select a_day() as day')).rows).toEqual([{ day: 'Jan' }]);
});
