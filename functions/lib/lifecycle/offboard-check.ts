import { type Instances, instanceName } from '../aws/rds.ts';
import { sharedClusters } from '../catalog/clusters.ts';
import type { ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { asRole } from '../isolation/homes.ts';
import { isolations, sharedHome } from '../isolation/isolation.ts';
import { homeTables, maintaining, tablesWithRows } from '../isolation/rows.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import { ownOf, secretNames } from './leaving-homes.ts';

/** What was looked for, by kind, and what of it was found. */
export interface Remains {
  readonly looked: Readonly<Record<string, number>>;
  readonly found: readonly string[];
}

/** Every place in which something of a tenant could be, whatever its strategy is: it may have had another one before. */
export async function remains(
  { plane, instances }: { readonly plane: ControlPlane; readonly instances: Pick<Instances, 'status'> },
  catalog: ControlConnection,
  tenant: TenantId,
  homes: readonly ReachableHome[],
): Promise<Remains> {
  const looked: Record<string, number> = {};
  const found: string[] = [];
  const look = (kind: string, number: number, there: readonly string[]) => {
    looked[kind] = (looked[kind] ?? 0) + number;
    found.push(...there.map((name) => `${kind} ${name}`));
  };

  for (const table of ['homes', 'api_keys', 'migration_pins']) {
    const { rows } = await catalog.query(`select from catalog.${table} where tenant_id = $1 limit 1`, [
      tenant,
    ]);
    look('catalog', 1, rows.length > 0 ? [table] : []);
  }

  // It may have lived in any of them.
  for (const shared of await sharedClusters(catalog)) {
    await withConnection(endpointOf(plane, shared), async (connection) => {
      const rows = {
        tenant,
        schema: sharedHome.schema,
        epoch: 1,
        databaseId: shared.databaseId,
        keys: plane.keys,
      };
      const tables = await homeTables(connection, rows.schema);
      const withRows = await maintaining(connection, rows, () => tablesWithRows(connection, tables, tenant));
      look('rows in', tables.length, withRows);
      const own = [{ table: 'tenancy.homes' }, { table: 'tenancy.changes' }, { table: 'tenancy.imports' }];
      look(
        'rows in',
        own.length,
        await asRole(connection, 'tenancy_keeper', () => tablesWithRows(connection, own, tenant)),
      );
      const schemas = names(homes, (home) => ownOf(home) === 'shared' && home.schema);
      look('schema', schemas.length, await existing(connection, 'nspname', 'pg_namespace', schemas));
    });
  }

  // Roles and databases are a cluster's: those of an instance have gone with it.
  const clusters = new Map(
    homes.filter((home) => ownOf(home) !== 'instance').map((home) => [home.clusterId, home]),
  );
  for (const one of clusters.values()) {
    const here = homes.filter(({ clusterId }) => clusterId === one.clusterId);
    await withConnection(endpointOf(plane, one, 'postgres'), async (connection) => {
      const logins = names(here, (home) => home.login);
      look('login', logins.length, await existing(connection, 'rolname', 'pg_roles', logins));
      const databases = here.filter((home) => ownOf(home) === 'database').map(({ database }) => database);
      look('database', databases.length, await existing(connection, 'datname', 'pg_database', databases));
    });
  }

  for (const name of homes
    .filter((home) => ownOf(home) === 'instance')
    .map(({ homeId }) => instanceName(homeId)))
    look('instance', 1, (await instances.status(name, tenant)) === undefined ? [] : [name]);
  for (const name of new Set(homes.flatMap((home) => secretNames(plane, home))))
    look('secret', 1, (await plane.secrets.find(name)) === undefined ? [] : [name]);
  return { looked, found };
}

/** Names that are a home's alone. */
const names = (homes: readonly ReachableHome[], name: (home: ReachableHome) => string | false): string[] =>
  homes
    .filter((home) => isolations[home.strategy].ownsTables)
    .map(name)
    .filter((given) => given !== false);

async function existing(
  connection: ControlConnection,
  column: string,
  catalog: string,
  wanted: readonly string[],
): Promise<string[]> {
  const { rows } = await connection.query<{ name: string }>(
    `select ${column}::text as name from ${catalog} where ${column} = any ($1)`,
    [[...wanted]],
  );
  return rows.map(({ name }) => name);
}
