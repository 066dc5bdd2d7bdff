import { randomUUID } from 'node:crypto';
import { sharedCluster } from '../catalog/clusters.ts';
import { type PastMoves, pastMoves } from '../catalog/moves.ts';
import { presentHome, type ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { openCopyConnection } from '../database/copy-between.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { requirePlausible } from '../move/identities.ts';
import { tooMany } from '../move/limits.ts';
import { quote, reading } from '../move/side.ts';
import { readTables } from '../move/tables.ts';
import { type Strategy, strategies, type TenantId } from '../tenant/tenant.ts';
import { adminEndpoint, type ControlPlane } from './control-plane.ts';
import { type Destination, type MoveRequest, requireMovable } from './move-begin.ts';

export interface MovePlan {
  readonly tenant: string;
  readonly from: Strategy | null;
  readonly to: Strategy;
  /** Rows as they are now; bytes of their values, without indexes. */
  readonly tables: readonly { readonly table: string; readonly rows: number; readonly bytes: number }[];
  /** What keeps it from beginning, or would end it; empty: nothing known now. */
  readonly blocks: readonly string[];
  /** Until the switch, s; null when it can't be told. */
  readonly seconds: number | null;
  /** Of these, until an instance of its own is there. */
  readonly instanceSeconds: number;
  /** How long writers waited in the last moves, ms, their median; null when there was none. */
  readonly pauseMs: number | null;
  /** What time and pause are estimated from. */
  readonly basis: string;
}

type PlanRequest = Omit<MoveRequest, 'windowSeconds'>;

/**
 * Rows a second from the copy's begin to the switch, compared in full on the way, for want of moves of one's own: 200,000 rows
 * of 130 bytes went into a schema at 43,000, on two cores that were busy with other things. Into shared tables rows are
 * written twice.
 */
const measured = { own: 40_000, shared: 20_000 };
/** RDS makes one in 3 to 10 minutes. s */
const instanceTakes = 600;
/** Connections that a move takes in a server, with one for the tenant's next call. */
const takesConnections = 4;

/** What a move would carry, how long it would take, and what keeps it from beginning. Nothing is changed. */
export async function planMove(
  plane: ControlPlane,
  catalog: ControlConnection,
  request: PlanRequest,
): Promise<MovePlan> {
  const { slug, to, placement } = request;
  const blocks = [...(await blocksOf(catalog, request))];
  const { rows } = await catalog.query('select tenant_id, home_id from catalog.tenants where slug = $1', [
    slug,
  ]);
  const home =
    rows[0]?.home_id == null ? undefined : await presentHome(catalog, rows[0].tenant_id as TenantId);
  const seen = home === undefined ? { tables: [], blocks: [] } : await look(plane, home);
  blocks.push(...seen.blocks);
  const destination = await requireMovable(catalog, request).catch(unlessRefused);
  if (destination !== undefined) blocks.push(...(await roomIn(plane, catalog, destination)));
  const past = await pastMoves(catalog, to, owning);
  const own = isolations[to].place(placement);
  const instanceSeconds = own === 'instance' ? instanceTakes : 0;
  const rowsInAll = seen.tables.reduce((sum, { rows }) => sum + rows, 0);
  const speed = past.rowsPerSecond ?? (isolations[to].ownsTables ? measured.own : measured.shared);
  const excess = tooMany(rowsInAll, to);
  if (excess !== undefined) blocks.push(excess);
  return {
    tenant: slug,
    from: home?.strategy ?? null,
    to,
    tables: seen.tables,
    blocks,
    seconds: home === undefined ? null : instanceSeconds + Math.ceil(rowsInAll / speed),
    instanceSeconds,
    pauseMs: past.pauseMs,
    basis: basisOf(past),
  };
}

const basisOf = ({ moves, rowsPerSecond, pauseMs }: PastMoves): string => {
  const speed =
    rowsPerSecond === null
      ? 'time by what was measured on two cores'
      : `time by the last ${moves} ${moves === 1 ? 'move' : 'moves'} of this kind`;
  return `${speed}; ${pauseMs === null ? 'no move has switched here yet' : 'pause by the last moves'}`;
};

const owning = strategies.filter((strategy) => isolations[strategy].ownsTables);

/** What the catalog alone knows to be in its way. */
export async function blocksOf(catalog: ControlConnection, request: PlanRequest): Promise<string[]> {
  const { slug, to } = request;
  const { rows } = await catalog.query(
    `select h.strategy, p.version as pin, p.until, o.kind as running,
            exists (select from catalog.operations m where m.kind = 'migrate' and m.state = 'running') as migrating,
            h.schema_digest is distinct from c.schema_digest as differs
       from catalog.tenants t left join catalog.homes h on h.home_id = t.home_id
       left join catalog.clusters c on c.cluster_id = coalesce($2, case when exists (select from catalog.clusters s where s.cluster_id = h.cluster_id and s.database_id is not null)
                                          then h.cluster_id else (select s.cluster_id from catalog.clusters s where s.kind = 'shared' and s.database_id is not null order by s.created_at, s.cluster_id limit 1) end)
       left join catalog.migration_pins p on p.tenant_id = t.tenant_id and p.until > now()
       left join catalog.operations o on o.tenant_id = t.tenant_id and o.state = 'running'
      where t.slug = $1`,
    [slug, request.cluster ?? null],
  );
  const row = rows[0];
  const blocks: string[] = [];
  if (row?.running != null)
    blocks.push(
      `An operation is under way: ${row.running}. Wait for its end: npm run tenants -- operations --watch`,
    );
  if (row?.migrating)
    blocks.push('A migration run is under way. Wait for its end: npm run tenants -- migrate status');
  await requireMovable(catalog, request).catch((error: unknown) => {
    if (!(error instanceof TenantryError)) throw error;
    blocks.push(error.message);
  });
  const changesTables =
    row?.strategy != null && isolations[row.strategy as Strategy].ownsTables && !isolations[to].ownsTables;
  if (changesTables && row.pin !== null)
    blocks.push(
      `It is pinned to ${row.pin} until ${row.until.toISOString().slice(0, 10)}, and shared tables are all at one version: npm run tenants -- migrate unpin ${slug}`,
    );
  if (changesTables && row.differs)
    blocks.push(
      'Its home and the shared tables are not at the same schema version: npm run tenants -- migrate run',
    );
  return blocks;
}

/** What its own home says: what there is to carry, and what can't be. */
async function look(
  plane: ControlPlane,
  home: ReachableHome,
): Promise<{ tables: MovePlan['tables']; blocks: string[] }> {
  const { clusterId, adminHost: host, adminPort: port, database } = home;
  const connection = await openCopyConnection(adminEndpoint(plane, { clusterId, host, port, database }));
  const side = { home, connection, keys: plane.keys, mover: randomUUID() };
  const found: { table: string; rows: number; bytes: number }[] = [];
  const blocks: string[] = [];
  try {
    await reading(side, async () => {
      const tables = await readTables(side);
      for (const { name } of tables) {
        const { rows } = await connection.query<{ rows: string; bytes: string }>(
          `select count(*) as rows, coalesce(sum(pg_column_size(t)), 0) as bytes from ${quote(name)} t where tenant_id = $1`,
          [home.tenant],
        );
        found.push({ table: name, rows: Number(rows[0]!.rows), bytes: Number(rows[0]!.bytes) });
      }
      await requirePlausible(side, tables);
    });
  } catch (error) {
    if (!(error instanceof TenantryError) || error.code !== 'move_refused') throw error;
    blocks.push(error.message);
  } finally {
    await connection.close();
  }
  return { tables: found, blocks };
}

/** Whether the server that it goes to has connections left. */
async function roomIn(
  plane: ControlPlane,
  catalog: ControlConnection,
  { clusterId }: Destination,
): Promise<string[]> {
  // An instance is made for it.
  if (clusterId === undefined) return [];
  const { adminHost: host, adminPort: port } = await sharedCluster(catalog, clusterId);
  const { used, all } = await withConnection(
    adminEndpoint(plane, { clusterId, host, port, database: 'postgres' }),
    async (connection) => {
      const { rows } = await connection.query<{ used: number; all: number }>(
        `select (select count(*)::integer from pg_stat_activity where backend_type = 'client backend') as used,
                current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
                  - current_setting('reserved_connections')::integer as all`,
      );
      return rows[0]!;
    },
  );
  if (all - used >= takesConnections) return [];
  return [
    `The cluster ${clusterId} has ${used} of ${all} connections in use: a move takes ${takesConnections}. Raise max_connections, or name another cluster.`,
  ];
}

function unlessRefused(error: unknown): undefined {
  if (error instanceof TenantryError) return undefined;
  throw error;
}
