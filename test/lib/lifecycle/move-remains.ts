import type { ReachableHome } from '../../../functions/lib/catalog/tenants.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { endpoint, type TestCluster } from '../../support/cluster.ts';
import type { SharedCluster } from '../../support/shared-cluster.ts';
import type { Stocked } from '../../support/stocked-tenant.ts';
import type { World } from '../../support/world.ts';

interface Servers {
  readonly world: World;
  readonly source: SharedCluster;
  readonly target: SharedCluster;
}

/** Past every wall, in one of the server's databases. */
function ask({ server }: TestCluster, database: string, statement: string): Promise<string[]> {
  const { host, port, superuserPassword } = server;
  const at = endpoint({ host, port, database, login: 'postgres' }, superuserPassword);
  return withConnection(at, async (connection) => {
    const { rows } = await connection.query<{ what: string }>(statement);
    return rows.map(({ what }) => what);
  });
}

/** Everything that there is of homes in a server. */
async function inServer({ server }: SharedCluster): Promise<string[]> {
  const found = await ask(
    server,
    'postgres',
    `select 'role ' || rolname as what from pg_roles where rolname like 't\\_%'
     union all select 'database ' || datname from pg_database where datname like 'home\\_%' or datname like 'own\\_%'`,
  );
  const names = found.filter((what) => what.startsWith('database ')).map((what) => what.slice(9));
  for (const database of ['tenantry', ...names])
    found.push(
      ...(await ask(
        server,
        database,
        `select 'schema ' || nspname as what from pg_namespace where nspname like 'tenant\\_%' or nspname like 'moving\\_%'
         union all select concat_ws(' ', 'home', home_id, state, case when capturing then 'capturing' end, move_id, mover) from tenancy.homes
         union all select 'change of ' || tenant_id from tenancy.changes group by tenant_id`,
      )),
    );
  const rows = await ask(
    server,
    'tenantry',
    `select 'items of ' || tenant_id as what from shared.items group by tenant_id
     union all select 'movements of ' || tenant_id from shared.stock_movements group by tenant_id`,
  );
  return [...found, ...rows];
}

/** Everything that exists for tenants in source and target, the catalog and the secrets. */
export async function everything({ world, source, target }: Servers): Promise<string[]> {
  const recorded = await ask(
    world.cluster,
    'tenantry_catalog',
    `select concat_ws(' ', 'home', home_id, state) as what from catalog.homes`,
  );
  return [
    ...(await inServer(source)).map((what) => `source: ${what}`),
    ...(await inServer(target)).map((what) => `target: ${what}`),
    ...recorded.map((what) => `catalog: ${what}`),
    ...world.emulator.secrets.all().map(({ name }) => `secret ${name}`),
  ];
}

/**
 * @param before `everything`, when the tenant was not there yet
 * @returns what the tenant's move, which has ended, has left beside the one open home that the catalog names
 */
export async function remainsOf(
  servers: Servers,
  before: readonly string[],
  { id }: Stocked,
  home: ReachableHome,
): Promise<string[]> {
  const at = servers.source.place.clusterId === home.clusterId ? 'source' : 'target';
  const { homeId, database, strategy } = home;
  const hex = homeId.replaceAll('-', '');
  const its = [
    `${at}: home ${homeId} open`,
    `catalog: home ${homeId} open`,
    ...(strategy === 'rls' ? [`${at}: items of ${id}`, `${at}: movements of ${id}`] : []),
    ...(strategy === 'schema'
      ? [`${at}: schema tenant_${hex}`, `secret tenancy-login/${home.clusterId}/t_${hex}`]
      : []),
    ...(strategy === 'database' ? [`${at}: database ${database}`, `secret mcp-tenant-db/${id}`] : []),
    ...(strategy === 'rls' ? [] : [`${at}: role t_${hex}`]),
  ];
  const after = await everything(servers);
  return [
    ...its.filter((what) => !after.includes(what)).map((what) => `there is no ${what}`),
    ...after.filter((what) => !its.includes(what) && !before.includes(what)),
  ];
}
