import type { Row } from '../database/types.ts';
import { TenantryError } from '../errors.ts';
import {
  type Strategy,
  slug as slugForm,
  type TenantId,
  type TenantStatus,
  type Tier,
} from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';

export interface NewTenant {
  readonly slug: string;
  readonly tier: Tier;
  readonly strategy: Strategy;
  /** Only this OIDC issuer's tokens (and API keys) speak for the tenant. */
  readonly issuer?: string;
  /** The issuer's own id of this organisation, for tokens that can't carry ours. */
  readonly externalId?: string;
}

/**
 * Records a tenant. One that never opened becomes what is asked for now, and its row is held: whoever begins an operation on
 * it does so in the same transaction, so that it can't come to serve as somebody else has asked.
 * @throws TenantryError `slug_invalid`, or `slug_taken` by a tenant of another strategy
 */
export async function recordTenant(catalog: Catalog, tenant: NewTenant): Promise<TenantId> {
  const slug = slugForm.safeParse(tenant.slug);
  if (!slug.success)
    throw new TenantryError(
      'slug_invalid',
      `The slug can't be used: ${slug.error.issues.map((i) => i.message).join('; ')}.`,
    );
  // Keys of whoever it was to be do not speak for whoever it becomes.
  await catalog.query(
    `with other as (select tenant_id from catalog.tenants where slug = $1 and status in ('provisioning', 'failed')
                       and (issuer, external_id) is distinct from ($4::text, $5::text)),
          revoked as (update catalog.api_keys k set revoked_at = coalesce(k.revoked_at, now()) from other o where k.tenant_id = o.tenant_id)
     insert into catalog.tenants as t (slug, tier, strategy, issuer, external_id) values ($1, $2, $3, $4, $5)
     on conflict (slug) do update set tier = excluded.tier, strategy = excluded.strategy, issuer = excluded.issuer,
       external_id = excluded.external_id, updated_at = now() where t.status in ('provisioning', 'failed')`,
    [slug.data, tenant.tier, tenant.strategy, tenant.issuer ?? null, tenant.externalId ?? null],
  );
  const { rows } = await catalog.query<{ tenant_id: TenantId; strategy: Strategy; status: TenantStatus }>(
    'select tenant_id, strategy, status from catalog.tenants where slug = $1',
    [slug.data],
  );
  if (['offboarding', 'offboarded'].includes(rows[0]!.status))
    throw new TenantryError(
      'slug_taken',
      `The tenant ${slug.data} is ${rows[0]!.status}: its slug stays taken. Choose another one.`,
    );
  if (rows[0]!.strategy !== tenant.strategy)
    throw new TenantryError(
      'slug_taken',
      `The slug ${slug.data} belongs to another tenant. Choose another one.`,
    );
  return rows[0]!.tenant_id;
}

export interface CatalogHome {
  readonly homeId: string;
  readonly tenant: TenantId;
  readonly clusterId: string;
  readonly strategy: Strategy;
  readonly database: string;
  readonly databaseId: string;
  readonly schema: string;
  readonly login: string;
  readonly epoch: number;
}

/** In the order of the columns that both ways to record a home name. */
export const homeValues = (home: CatalogHome) => [
  home.homeId,
  home.tenant,
  home.clusterId,
  home.strategy,
  home.database,
  home.databaseId,
  home.schema,
  home.login,
  home.epoch,
];

/** Records the tenant's first home, or answers the one it has: a repeated onboarding continues with the same. */
export async function recordFirstHome(catalog: Catalog, home: CatalogHome): Promise<CatalogHome> {
  const { rows } = await catalog.query<{
    home_id: string;
    schema_name: string;
    login: string;
    epoch: string;
    database_id: string;
  }>(
    `with first as (select * from catalog.homes where tenant_id = $2 order by created_at limit 1),
     made as (
       insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, epoch, state)
       select $1, $2, $3, $4, $5, $6, $7, $8, $9, 'provisioning' where not exists (select from first) returning *)
     select home_id, schema_name, login, epoch, database_id from first
     union all select home_id, schema_name, login, epoch, database_id from made`,
    homeValues(home),
  );
  const row = rows[0]!;
  return {
    ...home,
    homeId: row.home_id,
    schema: row.schema_name,
    login: row.login,
    epoch: Number(row.epoch),
    databaseId: row.database_id,
  };
}

/**
 * The home is the tenant's from now on, and open. Only a tenant on its way in becomes active: a suspended one stays suspended.
 * The operation that made it is done in the same statement: one that still ran would be taken back, with the tenant in it.
 */
export async function activateTenant(
  catalog: Catalog,
  tenant: TenantId,
  homeId: string,
  operationId?: string,
): Promise<void> {
  await catalog.query(
    `with opened as (update catalog.homes set state = 'open' where home_id = $2 and tenant_id = $1 and state = 'provisioning'),
          ended as (update catalog.operations set state = 'done', finished_at = now() where operation_id = $3 and state = 'running')
     update catalog.tenants set home_id = $2, status = 'active', updated_at = now()
      where tenant_id = $1 and status in ('provisioning', 'failed')`,
    [tenant, homeId, operationId ?? null],
  );
}

/** A home and how the control plane reaches it. */
export interface ReachableHome extends CatalogHome {
  readonly adminHost: string;
  readonly adminPort: number;
}

/** Where a tenant's present home is, for what the control plane does to it. @throws TenantryError `tenant_not_served` */
export async function presentHome(catalog: Catalog, tenant: TenantId): Promise<ReachableHome> {
  const { rows } = await catalog.query('select home_id from catalog.tenants where tenant_id = $1', [tenant]);
  const home = rows[0]?.home_id && (await findHome(catalog, rows[0].home_id));
  if (!home) throw new TenantryError('tenant_not_served', 'This tenant has no home.');
  return home;
}

export async function findHome(catalog: Catalog, homeId: string): Promise<ReachableHome | undefined> {
  const { rows } = await catalog.query(`${reachableHomes} where h.home_id = $1`, [homeId]);
  return rows[0] && reachable(rows[0]);
}

/** All that the catalog knows of a tenant's homes. */
export async function homesOf(
  catalog: Catalog,
  tenant: TenantId,
): Promise<(ReachableHome & { readonly isInUse: boolean })[]> {
  const { rows } = await catalog.query(`${reachableHomes} where h.tenant_id = $1 order by h.created_at`, [
    tenant,
  ]);
  return rows.map((row) => ({ ...reachable(row), isInUse: row.home_id === row.used }));
}

const reachableHomes = `select h.*, c.admin_host, c.admin_port, t.home_id as used
  from catalog.homes h join catalog.clusters c using (cluster_id) join catalog.tenants t using (tenant_id)`;

export const reachable = (row: Row): ReachableHome => ({
  homeId: row.home_id,
  tenant: row.tenant_id,
  clusterId: row.cluster_id,
  strategy: row.strategy,
  database: row.database_name,
  databaseId: row.database_id,
  schema: row.schema_name,
  login: row.login,
  epoch: Number(row.epoch),
  adminHost: row.admin_host,
  adminPort: row.admin_port,
});

/** @returns false when the tenant is neither active nor suspended already */
export async function suspendTenant(catalog: Catalog, tenant: TenantId): Promise<boolean> {
  const { rowCount } = await catalog.query(
    `with changed as (update catalog.tenants set status = 'suspended', updated_at = now()
                       where tenant_id = $1 and status in ('active', 'suspended') returning home_id)
     update catalog.homes h set state = 'suspended' from changed where h.home_id = changed.home_id`,
    [tenant],
  );
  return rowCount === 1;
}

/** Of a tenant that has no home in use yet. @returns false when it was in none of the states `from` */
export async function changeTenantStatus(
  catalog: Catalog,
  tenant: TenantId,
  from: readonly TenantStatus[],
  to: TenantStatus,
): Promise<boolean> {
  const { rowCount } = await catalog.query(
    'update catalog.tenants set status = $3, updated_at = now() where tenant_id = $1 and status = any ($2)',
    [tenant, [...from], to],
  );
  return rowCount === 1;
}

/** Takes back a home that never opened. */
export async function forgetFirstHome(catalog: Catalog, homeId: string): Promise<void> {
  await catalog.query("delete from catalog.homes where home_id = $1 and state = 'provisioning'", [homeId]);
}

export interface ApiKeyRecord {
  readonly keyId: string;
  readonly tenant: TenantId;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly expires: Date;
}

export async function recordApiKey(catalog: Catalog, key: ApiKeyRecord): Promise<void> {
  await catalog.query(
    `insert into catalog.api_keys (key_id, tenant_id, name, scopes, expires_at) values ($1, $2, $3, $4, $5) on conflict (key_id) do nothing`,
    [key.keyId, key.tenant, key.name, [...key.scopes], key.expires],
  );
}

/** Refused by every environment when its copy of the route ages out, 30 s at most. */
export async function revokeApiKey(catalog: Catalog, keyId: string): Promise<void> {
  await catalog.query(
    'update catalog.api_keys set revoked_at = coalesce(revoked_at, now()) where key_id = $1',
    [keyId],
  );
}
