import { type Principal, productAuth } from '../auth/principal.ts';
import { createSecrets, type Secrets } from '../aws/secrets.ts';
import type { Route } from '../catalog/route.ts';
import { createRoutes } from '../catalog/routes.ts';
import { type ConnectionPools, createConnectionPools } from '../database/pools.ts';
import { openTenantDatabase } from '../database/tenant-database.ts';
import type { CallLimits, FindPassage } from '../database/types.ts';
import { renewed } from '../renewed.ts';
import type { McpSettings } from '../settings.ts';
import { readingCatalog } from './catalog-reader.ts';
import { type MasterKeys, parseMasterKeys, signContext } from './context.ts';
import { createCredentials } from './credentials.ts';
import { isolations } from './isolation.ts';

/** A connection idle for longer is not used again, ms: RDS Proxy closes its end after 30 minutes. */
const MAX_IDLE_MS = 29 * 60_000;
/** How long a call waits for a connection of the budget, ms. */
const WAIT_MS = 3_000;

export interface Access {
  /** @throws as `Routes.resolve` */
  resolve(principal: Principal): Promise<Route>;
  /** The tenant's database for one call. `route` is where it begins; a stale one is refreshed on the way. */
  database(principal: Principal, route: Route, limits: CallLimits): ReturnType<typeof openTenantDatabase>;
  /** For sealing what is handed out and comes back. */
  masterKeys(): Promise<MasterKeys>;
  readonly pools: ConnectionPools;
}

export interface AccessOptions {
  readonly settings: McpSettings;
  readonly secrets?: Secrets;
  readonly clock?: () => number;
}

/** The way from a verified principal to its tenant's rows. */
export function createAccess({
  settings,
  secrets = createSecrets(),
  clock = Date.now,
}: AccessOptions): Access {
  const credentials = createCredentials(settings.credentials, settings.region, secrets);
  const pools = createConnectionPools({
    maxConnections: settings.maxConnections,
    maxIdleMs: MAX_IDLE_MS,
    waitMs: WAIT_MS,
    clock,
  });
  const routes = createRoutes(readingCatalog(settings, credentials), pools, clock);
  // Not only when a call is refused: the next current key seals cursors before anything here was signed with it.
  const masterKeys = renewed(
    async () => parseMasterKeys(await secrets.read(settings.contextKeySecret, true)),
    clock,
  );

  return {
    pools,
    masterKeys: () => masterKeys(),
    resolve: (principal) => routes.resolve(principal),
    database(principal, start, limits) {
      let route = start;
      // The product's own call, to a home that may not be open yet.
      const purpose = principal.auth === productAuth ? 'verify' : 'call';
      const find: FindPassage = async ({ mode, statementMs, refresh }) => {
        if (refresh) route = await routes.resolve(principal, true);
        const [endpoint, keys] = await Promise.all([
          isolations[route.strategy].locate(route, credentials, settings.tls, refresh),
          masterKeys(refresh),
        ]);
        const { databaseId, tenant, epoch } = route;
        return {
          endpoint,
          context: signContext(keys, { databaseId, tenant, epoch, mode, purpose, statementMs }, clock()),
        };
      };
      return openTenantDatabase(find, limits, pools);
    },
  };
}
