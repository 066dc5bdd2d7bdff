import { whyLeftOut } from '../catalog/migration-runs.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { type ConnectionFacts, connectionBudget, type Inequality } from '../health/budget.ts';
import type { HealthState } from '../health/findings.ts';
import { type HealthReport, lastRecord, staleAfterSeconds } from '../health/record.ts';
import { type TenantHealth, tenantHealth } from '../health/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { migratedAs } from './migrations.ts';
import { findTenant } from './tenants.ts';

/** What the last run of the canary has found, with names: for operators. */
export interface HealthView {
  /** As `GET /health` says it: `down` also when the record is missing or old. */
  readonly state: HealthState;
  /** Of the record; null: the canary has never finished a run. */
  readonly ageSeconds: number | null;
  readonly report: HealthReport | null;
  /**
   * What the deployment may use of its connections, by the arithmetic that it was synthesized with, of what the shared
   * cluster really has. Null where there is no proxy to share.
   */
  readonly connectionBudget: readonly Inequality[] | null;
}

export interface TenantHealthView extends TenantHealth {
  readonly tenant: string;
  readonly strategy: string;
  readonly status: string;
  /** What the last migration run made of its tables. */
  readonly migrations: string;
  /** Of the whole. */
  readonly state: HealthState;
}

export async function showHealth(admin: Admin): Promise<HealthView> {
  const { record, budget } = await withCatalog(admin, async (catalog) => ({
    record: await lastRecord(catalog),
    budget: await budgetNow(catalog, admin.settings.connectionFacts),
  }));
  const isStale = record === undefined || record.ageSeconds > staleAfterSeconds;
  return {
    state: isStale ? 'down' : record.state,
    ageSeconds: record ? Math.round(record.ageSeconds) : null,
    report: record?.report ?? null,
    connectionBudget: budget,
  };
}

async function budgetNow(catalog: ControlConnection, facts: ConnectionFacts | undefined) {
  if (facts === undefined) return null;
  const { rows } = await catalog.query<{ max: number }>(
    `select current_setting('max_connections')::int as max`,
  );
  return connectionBudget({ ...facts, shared: { ...facts.shared, maxConnections: rows[0]!.max } });
}

/** @throws TenantryError `unknown_tenant`; `wrong_status` when it has no home to look at */
export async function showTenantHealth(admin: Admin, slug: string): Promise<TenantHealthView> {
  const { row, record, leftOut } = await withCatalog(admin, async (catalog) => {
    const row = await findTenant(catalog, slug);
    const target = row.shown_home && migratedAs(row.strategy, row.shown_home, row.cluster_id);
    return { row, record: await lastRecord(catalog), leftOut: target && (await whyLeftOut(catalog, target)) };
  });
  if (row.shown_home === null)
    throw new TenantryError(
      'wrong_status',
      `The tenant ${slug} is ${row.status} and has no home to look at: \`npm run tenants -- why ${slug}\`.`,
    );
  const home = {
    tenant: row.tenant_id,
    strategy: row.strategy,
    homeId: row.shown_home,
    schema: row.schema_name,
    login: row.login,
    epoch: Number(row.epoch),
    state: row.home_state,
    database: row.database_name,
    clusterId: row.cluster_id,
    adminHost: row.admin_host,
    adminPort: row.admin_port,
  };
  const { state } = await showHealth(admin);
  const health = await tenantHealth(admin.plane, home, record);
  const migrations = leftOut ? `left out: ${leftOut}` : 'ok';
  return { tenant: slug, strategy: row.strategy, status: row.status, migrations, state, ...health };
}
