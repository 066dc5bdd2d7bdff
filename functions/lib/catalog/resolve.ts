import { type Principal, productAuth } from '../auth/principal.ts';
import type { Row } from '../database/types.ts';
import { TenantryError } from '../errors.ts';
import type { Strategy, TenantId, TenantStatus } from '../tenant/tenant.ts';
import type { Route } from './route.ts';

interface ResolveRow {
  tenant_id: TenantId;
  slug: string;
  status: TenantStatus;
  key_revoked: boolean;
  strategy: Strategy;
  epoch: string;
  home_id: string | null;
  database_id: string;
  database_name: string;
  schema_name: string;
  login: string;
  cluster_id: string;
  host: string;
  port: number;
  schema_version: string | null;
}

/**
 * From a verified principal to the home of its tenant.
 * @throws TenantryError `tenant_not_served` (unknown, deleted, not ready, not this token's: one text), `tenant_suspended`, `key_revoked`
 */
export async function resolveRoute(
  query: (text: string, values: readonly unknown[]) => Promise<Row[]>,
  principal: Principal,
): Promise<Route> {
  const [row] = (await query('select * from catalog.resolve($1, $2)', [
    principal.tenant,
    principal.auth,
  ])) as ResolveRow[];
  if (row?.key_revoked)
    throw new TenantryError('key_revoked', 'This API key has been revoked. Ask the service for a new one.');
  // Its home says so already while the tenant can still be resumed.
  if (row?.status === 'suspended' || row?.status === 'offboarding')
    throw new TenantryError(
      'tenant_suspended',
      'This tenant is suspended. Its administrator can ask the service to resume it.',
    );
  if (row === undefined || row.home_id === null || !served(row, principal))
    throw new TenantryError('tenant_not_served', 'The tenant of this token is not served here.');
  return {
    tenant: row.tenant_id,
    slug: row.slug,
    status: row.status,
    strategy: row.strategy,
    epoch: Number(row.epoch),
    schemaVersion: row.schema_version,
    homeId: row.home_id,
    databaseId: row.database_id,
    database: row.database_name,
    schema: row.schema_name,
    login: row.login,
    clusterId: row.cluster_id,
    host: row.host,
    port: row.port,
  };
}

/** A tenant that is being provisioned is tried by the product itself before anybody else is let in. */
const served = ({ status }: ResolveRow, { auth }: Principal): boolean =>
  status === 'active' || (status === 'provisioning' && auth === productAuth);
