import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Pair } from '../../functions/lib/health/canaries.ts';
import { tryWalls } from '../../functions/lib/health/walls.ts';
import { tenantSecretName } from '../../functions/lib/isolation/credentials.ts';
import { type Pgbouncer, pgbouncerIsInstalled, startPgbouncer } from '../support/pgbouncer.ts';
import { routeOf, startWorld, type World } from '../support/world.ts';

let world: World;
let pooler: Pgbouncer;

beforeAll(async () => {
  if (!pgbouncerIsInstalled) return;
  world = await startWorld();
  const { a, b } = world.tenants.database;
  const secrets = await Promise.all(
    [a, b].map(async ({ id }) => {
      const name = tenantSecretName(id);
      return { name, value: JSON.parse(await world.secrets.read(name)) };
    }),
  );
  pooler = await startPgbouncer({
    server: world.cluster.server,
    logins: Object.fromEntries(secrets.map(({ value }) => [value.username, value.password])),
    serverConnections: 2,
  });
  const { host, port } = pooler;
  for (const { name, value } of secrets)
    await world.secrets.write(name, JSON.stringify({ ...value, host, port }));
});
afterAll(async () => {
  await pooler?.close();
  await world?.close();
});

it.skipIf(!pgbouncerIsInstalled)(
  'behind a pooler that lets a login in before the server has refused it, only an answer is a hole',
  async () => {
    const { a, b } = world.tenants.database;
    const look = async (pair: Pair) => {
      const findings = await tryWalls(world, world.plane.keys, pair, Date.now());
      return findings.map(({ check, object, finding }) => `${check}: ${object} ${finding}`);
    };
    expect(await look({ strategy: 'database', a: routeOf(a), b: routeOf(b) })).toEqual([]);
    // The other way round: PgBouncer remembers for a while whom the server has refused.
    await world.asProvisioner(a, (connection) =>
      connection.query(`grant connect on database ${a.home.database} to ${b.home.login}`),
    );
    expect(await look({ strategy: 'database', a: routeOf(b), b: routeOf(a) })).toEqual([
      `foreign_home: database ${a.home.database} of ${a.slug} answers the login of ${b.slug}`,
    ]);
  },
);
