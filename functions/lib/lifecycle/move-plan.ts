import { randomUUID } from 'node:crypto';
import { presentHome, type ReachableHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { openCopyConnection } from '../database/copy-between.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { tooMany } from '../move/limits.ts';
import { quote, reading } from '../move/side.ts';
import { readTables } from '../move/tables.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import { adminEndpoint, type ControlPlane } from './control-plane.ts';
import { requireMovable } from './move-begin.ts';

export interface MovePlan {
  readonly tenant: string;
  readonly from: Strategy | null;
  readonly to: Strategy;
  /** Rows as they are now; bytes of their values, without indexes. */
  readonly tables: readonly { readonly table: string; readonly rows: number; readonly bytes: number }[];
  /** What keeps it from beginning; empty: nothing known now. */
  readonly blocks: readonly string[];
  /** How long writers waited in the last moves, ms, their median; null when there was none. */
  readonly pauseMs: number | null;
}

/** What a move would carry, and what keeps it from beginning. Nothing is changed. */
export async function planMove(
  plane: ControlPlane,
  catalog: ControlConnection,
  slug: string,
  to: Strategy,
): Promise<MovePlan> {
  const { rows } = await catalog.query(
    `select t.tenant_id, t.home_id, (select percentile_cont(0.5) within group (order by p.pause_ms)
         from (select pause_ms from catalog.moves where pause_ms is not null order by switched_at desc limit 10) p) as pause,
       (select o.kind from catalog.operations o where o.state = 'running' and (o.tenant_id = t.tenant_id or o.kind = 'migrate') limit 1) as running,
       h.schema_digest is distinct from (select c.schema_digest from catalog.clusters c where c.cluster_id = h.cluster_id) as differs
       from catalog.tenants t left join catalog.homes h on h.home_id = t.home_id where t.slug = $1`,
    [slug],
  );
  const { tenant_id, home_id, pause, running, differs } = rows[0]!;
  const blocks: string[] = [];
  if (running !== null) blocks.push(`An operation is under way: ${running}.`);
  await requireMovable(catalog, slug, to).catch((error: unknown) => {
    if (!(error instanceof TenantryError)) throw error;
    blocks.push(error.message);
  });
  const home = home_id === null ? undefined : await presentHome(catalog, tenant_id as TenantId);
  if (home !== undefined && !isolations[to].ownsTables && isolations[home.strategy].ownsTables && differs)
    blocks.push('Its home and the shared tables are not at the same schema version: migrate first.');
  const tables = home === undefined ? [] : await sizes(plane, home);
  const excess = tooMany(
    tables.reduce((sum, { rows }) => sum + rows, 0),
    to,
  );
  if (excess !== undefined) blocks.push(excess);
  return {
    tenant: slug,
    from: home?.strategy ?? null,
    to,
    tables,
    blocks,
    pauseMs: pause,
  };
}

async function sizes(plane: ControlPlane, home: ReachableHome): Promise<MovePlan['tables']> {
  const { clusterId, adminHost: host, adminPort: port, database } = home;
  const connection = await openCopyConnection(adminEndpoint(plane, { clusterId, host, port, database }));
  const side = { home, connection, keys: plane.keys, mover: randomUUID() };
  try {
    return await reading(side, async () => {
      const found: { table: string; rows: number; bytes: number }[] = [];
      for (const { name } of await readTables(side)) {
        const { rows } = await connection.query<{ rows: string; bytes: string }>(
          `select count(*) as rows, coalesce(sum(pg_column_size(t)), 0) as bytes from ${quote(name)} t where tenant_id = $1`,
          [home.tenant],
        );
        found.push({ table: name, rows: Number(rows[0]!.rows), bytes: Number(rows[0]!.bytes) });
      }
      return found;
    });
  } finally {
    await connection.close();
  }
}
