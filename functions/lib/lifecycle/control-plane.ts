import { createSecrets, type Secrets } from '../aws/secrets.ts';
import { KeptConnections } from '../database/kept.ts';
import type { Endpoint } from '../database/types.ts';
import { catalogDatabase } from '../isolation/catalog-reader.ts';
import { type MasterKeys, parseMasterKeys } from '../isolation/context.ts';
import { type Credentials, createCredentials } from '../isolation/credentials.ts';
import type { ControlSettings } from '../settings.ts';

/** What operating tenants needs, built once by whoever does it. */
export interface ControlPlane {
  /** The shared cluster that also holds the catalog. */
  readonly catalog: { readonly clusterId: string; readonly host: string; readonly port: number };
  readonly secrets: Secrets;
  readonly credentials: Credentials;
  readonly keys: MasterKeys;
  /** How logins prove who they are; a `secret`'s password is made by us. */
  readonly loginsUse: 'iam' | 'secret';
  readonly tls: Endpoint['tls'];
  /** Installed in every database that holds tenants. */
  readonly extensions: readonly string[];
  /** Where connections wait for the next step; without it each step opens its own. */
  readonly kept?: KeptConnections | undefined;
}

/** One environment's, whose control plane is made anew from time to time: the budget counts environments. */
const kept = new KeptConnections();

/** The control plane of a function's settings. @throws TenantryError when the signing keys can't be read */
export async function createControlPlane(
  settings: Pick<
    ControlSettings,
    'catalog' | 'credentials' | 'region' | 'tls' | 'contextKeySecret' | 'extensions'
  >,
  secrets = createSecrets(),
): Promise<ControlPlane> {
  const { catalog, credentials, region, tls } = settings;
  return {
    catalog,
    secrets,
    credentials: createCredentials(credentials, region, secrets),
    keys: parseMasterKeys(await secrets.read(settings.contextKeySecret)),
    loginsUse: credentials,
    tls,
    extensions: settings.extensions,
    kept,
  };
}

/** As tenancy_provisioner, past any proxy. */
export function adminEndpoint(
  plane: Pick<ControlPlane, 'catalog' | 'credentials' | 'tls' | 'kept'>,
  at: { clusterId: string; host: string; port: number; database: string },
): Endpoint {
  const login = 'tenancy_provisioner';
  const { clusterId, host, port, database } = at;
  return {
    host,
    port,
    database,
    login,
    tls: plane.tls,
    // Elsewhere connections are fewer than functions: a dedicated server counts four of ours.
    kept: clusterId === plane.catalog.clusterId ? plane.kept : undefined,
    password: (fresh) => plane.credentials.password({ clusterId, host, port, login }, fresh),
  };
}

/** The same, where the catalog says that a home, or a cluster's database for homes, is. */
export const endpointOf = (
  plane: Parameters<typeof adminEndpoint>[0],
  at: { clusterId: string; adminHost: string; adminPort: number; database: string },
  database = at.database,
): Endpoint =>
  adminEndpoint(plane, { clusterId: at.clusterId, host: at.adminHost, port: at.adminPort, database });

export const catalogEndpoint = (
  plane: Pick<ControlPlane, 'catalog' | 'credentials' | 'tls' | 'kept'>,
): Endpoint => adminEndpoint(plane, { ...plane.catalog, database: catalogDatabase });
