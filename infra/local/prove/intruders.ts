import { randomBytes, randomUUID } from 'node:crypto';
import { type ControlConnection, withConnection } from '../../../functions/lib/database/connect.ts';
import type { Endpoint } from '../../../functions/lib/database/types.ts';
import { changeHomeState } from '../../../functions/lib/isolation/homes.ts';
import { isolations } from '../../../functions/lib/isolation/isolation.ts';
import { adminEndpoint, type ControlPlane } from '../../../functions/lib/lifecycle/control-plane.ts';
import {
  createDatabase,
  installRuntime,
  tenantsDatabase,
} from '../../../functions/lib/migrations/install.ts';
import { migrateHome } from '../../../functions/lib/migrations/migrator.ts';
import { homeMigrations } from '../../../functions/lib/migrations/release.ts';
import { type Strategy, strategies, type TenantId } from '../../../functions/lib/tenant/tenant.ts';
import type { Party } from './party.ts';

/** Tenants that the catalog does not know, next door to those that it does; gone after `remove`. */
export interface Intruders {
  readonly parties: readonly Party[];
  remove(): Promise<void>;
}

/** One of each strategy, on the shared cluster: nobody stands nearer to the others. */
export async function letIn(plane: ControlPlane): Promise<Intruders> {
  const own = `prove_${randomUUID().replaceAll('-', '')}`;
  const admin = (database: string) => adminEndpoint(plane, { ...plane.catalog, database });
  const parties: Party[] = [];
  let removed: Promise<void> | undefined;
  const remove = () => (removed ??= removeAll());
  async function removeAll() {
    for (const party of parties) {
      const isolation = isolations[party.strategy];
      await withConnection(admin(isolation.removedFrom(party)), (connection) =>
        isolation.deprovision(connection, party),
      );
    }
    // When it was made and nobody moved in.
    await withConnection(admin('postgres'), (connection) =>
      connection.query(`drop database if exists ${own} with (force)`),
    );
  }
  try {
    await withConnection(admin('postgres'), (connection) => createDatabase(connection, own));
    const extensions = await withConnection(admin(tenantsDatabase), extensionsOf);
    for (const strategy of strategies)
      await makeIntruder(
        plane,
        admin(strategy === 'database' ? own : tenantsDatabase),
        strategy,
        extensions,
        parties,
      );
    return { parties, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** What the running system's tables build on. */
async function extensionsOf(connection: ControlConnection): Promise<string[]> {
  const { rows } = await connection.query<{ name: string }>(
    "select extname::text as name from pg_extension where extnamespace = 'extensions'::regnamespace",
  );
  return rows.map(({ name }) => name);
}

async function makeIntruder(
  plane: ControlPlane,
  admin: Endpoint,
  strategy: Strategy,
  extensions: readonly string[],
  parties: Party[],
): Promise<void> {
  const isolation = isolations[strategy];
  const homeId = randomUUID();
  const names = isolation.name(homeId);
  const password = randomBytes(18).toString('base64url');
  const { host, port, clusterId } = plane.catalog;
  const { login } = names;
  await withConnection(admin, async (connection) => {
    const databaseId = await installRuntime(connection, plane.keys, extensions);
    const party: Party = {
      ...names,
      name: `an intruder (${strategy})`,
      homeId,
      tenant: randomUUID() as TenantId,
      strategy,
      epoch: 1,
      database: admin.database,
      databaseId,
      endpoint: {
        ...admin,
        login,
        password: isolation.ownsTables
          ? async () => password
          : (fresh) => plane.credentials.password({ clusterId, host, port, login }, fresh),
      },
    };
    parties.push(party);
    await isolation.provision(connection, party, isolation.ownsTables ? password : undefined);
    if (isolation.ownsTables)
      await migrateHome(connection, { home: party, databaseId, keys: plane.keys }, await homeMigrations());
    await changeHomeState(connection, homeId, ['provisioning'], 'open');
  });
}
