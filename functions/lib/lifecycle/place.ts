import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cluster } from '../catalog/clusters.ts';
import { withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import type { Endpoint } from '../database/types.ts';
import { catalogDatabase, catalogReader } from '../isolation/catalog-reader.ts';
import { loginSecretName, parseDatabaseSecret } from '../isolation/credentials.ts';
import {
  createDatabase,
  installCatalog,
  installProvisioner,
  installRoles,
  installRuntime,
} from '../migrations/install.ts';
import { adminEndpoint, type ControlPlane, catalogEndpoint, endpointOf } from './control-plane.ts';

/** A database that can take homes: its runtime is installed. */
export interface Place {
  readonly clusterId: string;
  readonly kind: 'shared' | 'dedicated';
  /** What calls connect to: RDS Proxy for a shared cluster. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly databaseId: string;
  /** As tenancy_provisioner, past any proxy. */
  readonly admin: Endpoint;
}

/**
 * From a new cluster, of which only the master's password is known, to a database that can take homes. Every step is
 * safe to repeat, and is repeated at every deployment: the runtime's new migrations and keys come in this way.
 */
export async function preparePlace(
  plane: ControlPlane,
  cluster: Cluster,
  database: string,
  master: Endpoint,
): Promise<Place> {
  const { clusterId, kind, host, port } = cluster;
  const passwords = await loginPasswords(plane, cluster);
  const provisioner = endpointOf(plane, { ...cluster, database: 'postgres' });
  // Once only: where logins use IAM, the master has locked its own password out by making this role.
  if (!(await mayConnect(provisioner)))
    await withConnection(master, (connection) =>
      installProvisioner(connection, passwords?.tenancy_provisioner),
    );
  await withConnection(provisioner, async (connection) => {
    await installRoles(connection, passwords?.tenancy_app);
    await createDatabase(connection, database);
  });
  const admin = endpointOf(plane, { ...cluster, database });
  const databaseId = await runtimeIn(plane, admin);
  return { clusterId, kind, host, port, database, databaseId, admin };
}

/** A database that shall take homes gets its runtime, or what the runtime has new. @returns the database's id */
export const runtimeIn = (plane: ControlPlane, admin: Endpoint): Promise<string> =>
  withConnection(admin, (connection) => installRuntime(connection, plane.keys, plane.extensions));

/** Between attempts with a token that RDS has refused, ms. */
const pauses = [1_000, 2_000, 4_000, 8_000, 15_000];

/**
 * Whether there is this login, and it is let in. RDS has PAM look at tokens of logins that are there and may use one, and now
 * and then it refuses a good one: those are tried again, and never taken for a login that is missing.
 * @throws ConnectFailure when it is not the login that stands in the way
 */
export async function mayConnect(endpoint: Endpoint, waits: readonly number[] = pauses): Promise<boolean> {
  for (let attempt = 0; ; attempt++) {
    try {
      await withConnection(endpoint, async () => {});
      return true;
    } catch (error) {
      if (!(error instanceof ConnectFailure) || error.meaning !== 'credential') throw error;
      const isToken = /^PAM /.test((error.cause as Error).message);
      if (!isToken) return false;
      if (waits[attempt] === undefined) throw error;
      await sleep(waits[attempt]);
    }
  }
}

/** The catalog, in the shared cluster once that has its roles. Safe to repeat. */
export async function prepareCatalog(plane: ControlPlane): Promise<void> {
  const { clusterId, host, port } = plane.catalog;
  const { clusterId: holder, login } = catalogReader;
  const secret = { name: loginSecretName(holder, login), password: true };
  const password =
    plane.loginsUse === 'secret'
      ? await keepLoginSecret(plane, secret, { host, port, dbname: catalogDatabase, username: login })
      : undefined;
  await withConnection(adminEndpoint(plane, { clusterId, host, port, database: 'postgres' }), (connection) =>
    createDatabase(connection, catalogDatabase),
  );
  await withConnection(catalogEndpoint(plane), (connection) => installCatalog(connection, password));
}

async function loginPasswords(plane: ControlPlane, cluster: Cluster) {
  if (plane.loginsUse === 'iam') return undefined;
  const password = (username: string, host: string, port: number) =>
    keepLoginSecret(
      plane,
      { name: loginSecretName(cluster.clusterId, username), password: true },
      { host, port, dbname: 'postgres', username },
    );
  return {
    tenancy_provisioner: await password('tenancy_provisioner', cluster.adminHost, cluster.adminPort),
    tenancy_app: await password('tenancy_app', cluster.host, cluster.port),
  };
}

/**
 * A login's secret in RDS's form, made or brought up to date; keeps the password it has. Written before the login gets
 * its password: a crash between the two is mended by the next run, which reads it from here.
 */
export async function keepLoginSecret(
  plane: ControlPlane,
  secret: { name: string; password: boolean | 'as it is' },
  at: { host: string; port: number; dbname: string; username: string },
): Promise<string | undefined> {
  const known = await plane.secrets.find(secret.name);
  const kept = known && secret.password ? parseDatabaseSecret(secret.name, known).password : undefined;
  const password = kept ?? (secret.password === true ? randomBytes(24).toString('base64url') : undefined);
  const wanted = JSON.stringify({ engine: 'postgres', ...at, password });
  if (known === undefined) await plane.secrets.create(secret.name, wanted);
  else if (wanted !== known) await plane.secrets.write(secret.name, wanted);
  return password;
}
