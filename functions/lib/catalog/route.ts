import type { Strategy, TenantId, TenantStatus } from '../tenant/tenant.ts';

/** Where a tenant's data lives now. A copy may be stale: the home itself refuses what is addressed to an older epoch. */
export interface Route {
  readonly tenant: TenantId;
  readonly slug: string;
  readonly status: TenantStatus;
  readonly strategy: Strategy;
  readonly epoch: number;
  readonly schemaVersion: string | null;
  readonly homeId: string;
  readonly databaseId: string;
  readonly database: string;
  readonly schema: string;
  readonly login: string;
  readonly clusterId: string;
  readonly host: string;
  readonly port: number;
}
