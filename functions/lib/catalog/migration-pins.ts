import type { TenantId } from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';

export interface Pin {
  readonly version: string;
  readonly reason: string;
  readonly until: Date;
}

/** Replaces the one it has. */
export async function pinTenant(
  catalog: Catalog,
  tenant: TenantId,
  { version, reason, until }: Pin,
): Promise<void> {
  await catalog.query(
    `insert into catalog.migration_pins (tenant_id, version, reason, until) values ($1, $2, $3, $4)
     on conflict (tenant_id) do update set version = excluded.version, reason = excluded.reason, until = excluded.until, created_at = now()`,
    [tenant, version, reason, until],
  );
}

/** @returns false when it had none */
export async function unpinTenant(catalog: Catalog, tenant: TenantId): Promise<boolean> {
  const { rowCount } = await catalog.query('delete from catalog.migration_pins where tenant_id = $1', [
    tenant,
  ]);
  return rowCount === 1;
}
