import type { Endpoint } from '../database/types.ts';
import type { Credentials } from './credentials.ts';

/** The login that may look up routes and the canary's last word, and nothing else of the catalog; where its secret is. */
export const catalogReader = { clusterId: 'catalog', login: 'tenancy_catalog_reader' } as const;

/** In the shared cluster, beside the tenants' own. */
export const catalogDatabase = 'tenantry_catalog';

/** The catalog as the data plane reaches it. */
export function readingCatalog(
  { catalog, tls }: { catalog: { host: string; port: number }; tls: Endpoint['tls'] },
  credentials: Pick<Credentials, 'password'>,
): Endpoint {
  const { host, port } = catalog;
  return {
    host,
    port,
    database: catalogDatabase,
    login: catalogReader.login,
    tls,
    password: (fresh) => credentials.password({ ...catalogReader, host, port }, fresh),
  };
}
