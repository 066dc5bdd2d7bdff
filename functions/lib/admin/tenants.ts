import { type Move, readMove } from '../catalog/moves.ts';
import { graceEnd } from '../catalog/offboarding.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import { canBeCancelled } from '../lifecycle/cancel.ts';
import { adminEndpoint } from '../lifecycle/control-plane.ts';
import { type Operation, readOperation } from '../lifecycle/operations.ts';
import { resume, suspend } from '../lifecycle/suspend.ts';
import { readVersion } from '../migrations/history.ts';
import type { HomeState, Strategy, TenantId, TenantStatus, Tier } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { type OperationView, operationViews } from './operations.ts';
import { endStalled } from './stalled.ts';

export interface TenantSummary {
  readonly id: TenantId;
  readonly slug: string;
  readonly tier: Tier;
  readonly strategy: Strategy;
  readonly status: TenantStatus;
  readonly createdAt: string;
}

export interface TenantView extends TenantSummary {
  readonly issuer: string | null;
  readonly externalId: string | null;
  readonly home: HomeView | null;
  /** The newest migration of the home; null when it has none or can't be reached. */
  readonly schemaVersion: string | null;
  /** Since when its offboarding can't be undone. */
  readonly removalBegunAt: string | null;
  /** While it is being offboarded: until then `resume` undoes that. */
  readonly graceEndsAt: string | null;
  /** The one that runs, else the last. */
  readonly operation: OperationView | null;
}

export interface HomeView {
  readonly id: string;
  readonly cluster: { readonly id: string; readonly kind: 'shared' | 'dedicated' };
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly schema: string;
  readonly state: HomeState;
  readonly epoch: number;
}

const pageSize = 500;

/** By slug; `next` is where to go on. The product's own canaries only when asked for: they are no customers. */
export async function listTenants(
  admin: Admin,
  after = '',
  canaries = false,
): Promise<{ tenants: TenantSummary[]; next: string | null }> {
  const { rows } = await withCatalog(admin, (catalog) =>
    catalog.query(
      'select * from catalog.tenants where slug > $1 and (not is_canary or $3) order by slug limit $2',
      [after, pageSize + 1, canaries],
    ),
  );
  const tenants = rows.slice(0, pageSize).map((row) => summary(row as TenantRow));
  return { tenants, next: rows.length > pageSize ? tenants.at(-1)!.slug : null };
}

/** @throws TenantryError `unknown_tenant` */
export async function showTenant(admin: Admin, slug: string): Promise<TenantView> {
  const { row, operation, graceEndsAt } = await withCatalog(admin, async (catalog) => {
    const row = await findTenant(catalog, slug);
    const [operation] = await operationViews(catalog, { tenant: row.tenant_id, limit: 1 });
    const graceEndsAt = await graceEnd(catalog, row.tenant_id, admin.settings.waitFactor);
    return { row, operation, graceEndsAt };
  });
  return {
    ...summary(row),
    issuer: row.issuer,
    externalId: row.external_id,
    home:
      row.shown_home === null
        ? null
        : {
            id: row.shown_home,
            cluster: { id: row.cluster_id, kind: row.cluster_kind },
            host: row.host,
            port: row.port,
            database: row.database_name,
            schema: row.schema_name,
            state: row.home_state,
            epoch: Number(row.epoch),
          },
    removalBegunAt: row.removal_begun_at?.toISOString() ?? null,
    graceEndsAt: graceEndsAt?.toISOString() ?? null,
    schemaVersion: row.shown_home && (await schemaVersion(admin, row)),
    operation: operation ?? null,
  };
}

/** @throws TenantryError `unknown_tenant`, `wrong_status` */
export async function changeService(
  admin: Admin,
  slug: string,
  verb: 'suspend' | 'resume',
): Promise<{ result: 'done' | 'pending'; tenant: TenantView }> {
  const { tenant_id } = await withCatalog(admin, (catalog) => findTenant(catalog, slug));
  const result = await (verb === 'suspend' ? suspend : resume)(admin.plane, tenant_id);
  return { result, tenant: await showTenant(admin, slug) };
}

interface TenantRow {
  tenant_id: TenantId;
  slug: string;
  tier: Tier;
  strategy: Strategy;
  status: TenantStatus;
  created_at: Date;
}

interface FoundTenant extends TenantRow {
  issuer: string | null;
  external_id: string | null;
  removal_begun_at: Date | null;
  /** The home in use, or the one that is being made. */
  shown_home: string | null;
  home_state: HomeState;
  epoch: string;
  database_name: string;
  schema_name: string;
  login: string;
  cluster_id: string;
  cluster_kind: 'shared' | 'dedicated';
  host: string;
  port: number;
  admin_host: string;
  admin_port: number;
}

/** @throws TenantryError `unknown_tenant` */
export async function findTenant(catalog: ControlConnection, slug: string): Promise<FoundTenant> {
  const { rows } = await catalog.query<FoundTenant>(
    `select t.*, h.home_id as shown_home, h.state as home_state, h.epoch, h.database_name, h.schema_name, h.login,
            c.cluster_id, c.kind as cluster_kind, c.host, c.port, c.admin_host, c.admin_port
       from catalog.tenants t
       left join lateral (select * from catalog.homes o where o.tenant_id = t.tenant_id
                           order by o.home_id = t.home_id desc nulls last, o.created_at desc limit 1) h on true
       left join catalog.clusters c on c.cluster_id = h.cluster_id
      where t.slug = $1`,
    [slug],
  );
  if (rows[0] === undefined)
    throw new TenantryError(
      'unknown_tenant',
      'There is no such tenant. `npm run tenants -- list` shows all.',
    );
  return rows[0];
}

/**
 * Begins an operation on a tenant. When another one is in its way that nobody works on any more, that one is ended: the
 * caller is told of it, and finds the tenant free when it comes again.
 */
export async function afterStalled<T>(admin: Admin, slug: string, begin: () => Promise<T>): Promise<T> {
  try {
    return await begin();
  } catch (error) {
    if (!(error instanceof TenantryError) || error.code !== 'operation_running') throw error;
    const { operations, move } = await withCatalog(admin, async (catalog) => {
      const operationId = (await runningOperation(catalog, slug))?.operationId;
      if (operationId === undefined) return { operations: [] };
      return {
        operations: await operationViews(catalog, { operationId, limit: 1 }),
        move: await readMove(catalog, operationId),
      };
    });
    await endStalled(admin, operations);
    // What says more already is left as it is.
    const isGeneral = (error.cause as { constraint?: string } | undefined)?.constraint !== undefined;
    throw operations[0] && isGeneral ? inTheWay(slug, operations[0], move, error) : error;
  }
}

/** What is changing the tenant, and where its operator reads what ends it. */
function inTheWay(
  slug: string,
  { id, kind, step }: OperationView,
  move: Move | undefined,
  cause: unknown,
): TenantryError {
  const look = { move: `move status ${slug}`, offboard: `why ${slug}` }[kind as string] ?? `operations ${id}`;
  // What lasts long, and is given up more easily than waited for.
  const sooner =
    move?.phase === 'switched'
      ? `, or give up its way back: \`npm run tenants -- move complete ${slug}\``
      : canBeCancelled(kind)
        ? `, or end it: \`npm run tenants -- operations cancel ${id}\``
        : '';
  return new TenantryError(
    'operation_running',
    `Another operation is changing ${slug}: ${kind}, ${step ?? 'starting'}. Wait until it has ended${sooner}; how it stands: \`npm run tenants -- ${look}\`.`,
    { cause },
  );
}

/** The operation that is changing this tenant now. */
export async function runningOperation(
  catalog: ControlConnection,
  slug: string,
): Promise<Operation | undefined> {
  const { rows } = await catalog.query(
    `select operation_id from catalog.operations join catalog.tenants using (tenant_id) where slug = $1 and state = 'running'`,
    [slug],
  );
  return rows[0] && readOperation(catalog, rows[0].operation_id);
}

/** The same, when it is why another one could not be begun. */
export const runningInstead = async (
  catalog: ControlConnection,
  slug: string,
  error: unknown,
): Promise<Operation | undefined> =>
  error instanceof TenantryError && error.code === 'operation_running'
    ? runningOperation(catalog, slug)
    : undefined;

const summary = (row: TenantRow): TenantSummary => ({
  id: row.tenant_id,
  slug: row.slug,
  tier: row.tier,
  strategy: row.strategy,
  status: row.status,
  createdAt: row.created_at.toISOString(),
});

async function schemaVersion({ plane }: Admin, home: FoundTenant): Promise<string | null> {
  const { cluster_id: clusterId, admin_host: host, admin_port: port, database_name: database } = home;
  try {
    return await withConnection(adminEndpoint(plane, { clusterId, host, port, database }), (connection) =>
      asRole(connection, 'tenancy_owner', async () => {
        await connection.query("select set_config('search_path', $1, true)", [home.schema_name]);
        return await readVersion(connection);
      }),
    );
  } catch (error) {
    // A home that is being made or removed, or whose server is away: the rest of the answer is worth having.
    const hasNoHistory = (error as { code?: string }).code === '42P01';
    if (hasNoHistory || error instanceof ConnectFailure || home.home_state === 'provisioning') return null;
    throw error;
  }
}
