import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { recordCluster } from '../../../functions/lib/catalog/clusters.ts';
import { runCanary } from '../../../functions/lib/health/run.ts';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { loginSecretName } from '../../../functions/lib/isolation/credentials.ts';
import { startWorld, type World } from '../../support/world.ts';
import { startWatching, told } from './support.ts';

/** What takes a connection, or a call, and never says a word. */
let world: World;
let watch: Watch;
const sockets = new Set<Socket>();
const silent = createServer((socket) => void sockets.add(socket.on('error', () => {})));
beforeAll(async () => {
  world = await startWorld();
  watch = await startWatching(world);
  await once(silent.listen(0, '127.0.0.1'), 'listening');
}, 120_000);
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  silent.close();
  await world?.close();
});

it('calls of AWS that nobody answers keep no run from its end, nor what is there from being looked at', async () => {
  const { rows } = await world.asProvisioner('catalog', async (catalog) => {
    await catalog.query(
      `update catalog.tenants set slug = concat('once-', slug), is_canary = false where slug in ('canary-rls-b', 'canary-schema-b')`,
    );
    return catalog.query<{ homes: number }>(
      "select count(*)::int as homes from catalog.homes where strategy <> 'rls' and state = 'open'",
    );
  });
  const never = () => new Promise<never>(() => {});
  const run = await runCanary({ ...watch, provision: never, instances: never });
  const lines = told(run!);
  for (const slug of ['canary-rls-b', 'canary-schema-b'])
    expect(lines).toContain(`unfinished: ${slug} could not be checked: no answer within 15 s`);
  expect(lines).toContain('unfinished: dedicated instances could not be listed: no answer within 5 s');
  expect(lines.filter((line) => !line.startsWith('unfinished: '))).toEqual([]);
  expect([run!.state, run!.report.homes]).toEqual(['degraded', rows[0]!.homes]);
});

const count = 10;

it('a run begins none of them when its time is up, and each has its turn in one of the next', async () => {
  const { port } = silent.address() as AddressInfo;
  const host = '127.0.0.1';
  const databases: string[] = [];
  const known = await world.secrets.read(
    loginSecretName(world.plane.catalog.clusterId, 'tenancy_provisioner'),
  );
  for (let index = 0; index < count; index += 1) {
    const id = randomUUID();
    const database = `home_${id.replaceAll('-', '')}`;
    databases.push(database);
    const cluster = { clusterId: id, kind: 'dedicated', region: 'eu-west-1', host, port } as const;
    await world.secrets.write(loginSecretName(id, 'tenancy_provisioner'), known);
    await world.asProvisioner('catalog', async (catalog) => {
      await recordCluster(catalog, { ...cluster, adminHost: host, adminPort: port });
      await catalog.query(
        `insert into catalog.tenants (tenant_id, slug, tier, strategy, status) values ($1, $2, 'enterprise', 'database', 'active')`,
        [id, `silent-${index}`],
      );
      await catalog.query(
        `insert into catalog.homes (home_id, tenant_id, strategy, cluster_id, database_id, database_name, schema_name, login, state)
         values ($1, $1, 'database', $1, $1, $2, 'main', $3, 'open')`,
        [id, database, `t_${id.replaceAll('-', '')}`],
      );
      await catalog.query('update catalog.tenants set home_id = $1 where tenant_id = $1', [id]);
    });
  }
  const instance = { identifier: 'silent', status: 'available', tenant: undefined, host, port };
  const watching: Watch = { ...watch, instances: async () => [instance] };
  // Its time is up while the first of them, as many as are looked into at once, are waited for.
  let before = 0;
  const clock = () => Date.now() + (sockets.size >= before + 4 ? 60_000 : 0);
  const seen = new Set<string>();
  for (let round = 0; seen.size < count && round < 5; round += 1) {
    before = sockets.size;
    const lines = told((await runCanary(watching, clock))!);
    const tried = databases.filter((database) =>
      lines.some((line) => line.startsWith(`unfinished: database ${database} could not be checked`)),
    );
    expect(tried.length, lines.join('\n')).toBeGreaterThan(0);
    // As many as are looked into at once: none of these ends before the time is up.
    expect(tried.length, lines.join('\n')).toBeLessThanOrEqual(4);
    for (const database of tried) seen.add(database);
  }
  expect([...seen].sort()).toEqual(databases.sort());
}, 120_000);
