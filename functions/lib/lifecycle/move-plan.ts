import { randomUUID } from 'node:crypto';
import { sharedCluster } from '../catalog/clusters.ts';
import type { MoveCandidate } from '../catalog/move-candidates.ts';
import { type PastMoves, pastMoves } from '../catalog/moves.ts';
import type { ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, identifier, withConnection } from '../database/connect.ts';
import { openCopyConnection } from '../database/copy-between.ts';
import { TenantryError } from '../errors.ts';
import { connectionsInUse } from '../isolation/connections.ts';
import { isolations, owningStrategies } from '../isolation/isolation.ts';
import { unindexedKeys } from '../move/clean-up.ts';
import { nearlyDrawn, requireRoom } from '../move/identities.ts';
import { tooMany } from '../move/limits.ts';
import { reading } from '../move/side.ts';
import { readTables, requireNotInherited } from '../move/tables.ts';
import { requireQuiet } from '../move/triggers.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import {
  type Destination,
  destinationOf,
  type MoveRequest,
  type Room,
  readRoom,
  requireCandidate,
} from './move-begin.ts';

export interface MovePlan {
  readonly tenant: string;
  readonly from: Strategy | null;
  readonly to: Strategy;
  /** Rows as they are now; bytes of their values, without indexes. */
  readonly tables: readonly { readonly table: string; readonly rows: number; readonly bytes: number }[];
  /** What keeps it from beginning, or would end it; empty: nothing known now. */
  readonly blocks: readonly string[];
  /** What would make it easier. */
  readonly advice: readonly string[];
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
 * Rows a second from the start of the copy to the switch, compared in full on the way, for want of moves of one's own: 200,000 rows
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
  const candidate = await requireCandidate(catalog, request);
  const room = await readRoom(catalog);
  const { home } = candidate;
  const blocks = blocksOf(candidate, request, room);
  const seen = home === undefined ? { tables: [], blocks: [], advice: [] } : await look(plane, home, to);
  blocks.push(...seen.blocks);
  const { destination } = tried(candidate, request, room);
  if (destination !== undefined) blocks.push(...(await connectionsIn(plane, catalog, destination)));
  const past = await pastMoves(catalog, to, owningStrategies);
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
    advice: seen.advice,
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

/** What the catalog alone knows to be in its way. */
export function blocksOf(candidate: MoveCandidate, request: Omit<PlanRequest, 'slug'>, room: Room): string[] {
  const { home, running, isMigrating, differs } = candidate;
  const blocks: string[] = [];
  if (running !== undefined)
    blocks.push(
      `An operation is under way: ${running}. Wait for its end: npm run tenants -- operations --watch`,
    );
  if (isMigrating)
    blocks.push('A migration run is under way. Wait for its end: npm run tenants -- migrate status');
  const { refusal } = tried(candidate, request, room);
  if (refusal !== undefined) blocks.push(refusal);
  const changesTables =
    home !== undefined && isolations[home.strategy].ownsTables && !isolations[request.to].ownsTables;
  if (changesTables && differs)
    blocks.push(
      'Its home and the shared tables are not at the same schema version: npm run tenants -- migrate run',
    );
  return blocks;
}

/** Where it would go, or why it would be refused. */
function tried(
  candidate: MoveCandidate,
  request: Omit<PlanRequest, 'slug'>,
  room: Room,
): { readonly destination?: Destination; readonly refusal?: string } {
  try {
    return { destination: destinationOf(candidate, request, room) };
  } catch (error) {
    if (!(error instanceof TenantryError)) throw error;
    return { refusal: error.message };
  }
}

/** What its own home says: what there is to carry, and what can't be. */
async function look(
  plane: ControlPlane,
  home: ReachableHome,
  to: Strategy,
): Promise<{ tables: MovePlan['tables']; blocks: string[]; advice: string[] }> {
  const connection = await openCopyConnection(endpointOf(plane, home));
  const side = { home, connection, keys: plane.keys, mover: randomUUID() };
  const found: { table: string; rows: number; bytes: number }[] = [];
  const blocks: string[] = [];
  const advice: string[] = [];
  try {
    await reading(side, async () => {
      const tables = await readTables(side);
      for (const { name } of tables) {
        const { rows } = await connection.query<{ rows: string; bytes: string }>(
          `select count(*) as rows, coalesce(sum(pg_column_size(t)), 0) as bytes from ${identifier(name)} t where tenant_id = $1`,
          [home.tenant],
        );
        found.push({ table: name, rows: Number(rows[0]!.rows), bytes: Number(rows[0]!.bytes) });
      }
      requireNotInherited(tables);
      // Its own tables have the keys and triggers that the shared ones have.
      if (![home.strategy, to].every((strategy) => isolations[strategy].ownsTables)) {
        const keys = await unindexedKeys(side, tables);
        if (keys.length > 0)
          advice.push(
            `Rows that a move leaves in shared tables are deleted slowly, because these foreign keys have no index on their columns: ${keys.join(', ')}.`,
          );
        await requireQuiet(side, tables);
      }
      if (!isolations[to].ownsTables) requireRoom(await nearlyDrawn(side, tables));
    });
  } catch (error) {
    if (!(error instanceof TenantryError) || error.code !== 'move_refused') throw error;
    blocks.push(error.message);
  } finally {
    await connection.close();
  }
  return { tables: found, blocks, advice };
}

/** Whether the server that it goes to has connections left. */
async function connectionsIn(
  plane: ControlPlane,
  catalog: ControlConnection,
  { clusterId }: Destination,
): Promise<string[]> {
  // An instance is made for it.
  if (clusterId === undefined) return [];
  const shared = await sharedCluster(catalog, clusterId);
  const { used, all } = await withConnection(endpointOf(plane, shared, 'postgres'), async (connection) => {
    const { rows } = await connection.query<{ used: number; all: number }>(
      `select ${connectionsInUse} as used,
              current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
                - current_setting('reserved_connections')::integer as all`,
    );
    return rows[0]!;
  });
  if (all - used >= takesConnections) return [];
  return [
    `The cluster ${clusterId} has ${used} of ${all} connections in use: a move takes ${takesConnections}. Raise max_connections, or name another cluster.`,
  ];
}
