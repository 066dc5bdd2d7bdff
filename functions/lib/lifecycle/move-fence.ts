import { randomUUID } from 'node:crypto';
import { type Move, readMove } from '../catalog/moves.ts';
import { findHome, presentHome, type ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { claim, readState, release, setState, settle } from '../move/hold.ts';
import { closeSource } from '../move/switch.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import { openState } from './move-end.ts';
import { readOperation } from './operations.ts';
import { operationLock } from './step.ts';

/** Moves that ended longer ago have been looked at often enough, days. */
const DAYS = 7;
const AT_ONCE = 100;
/** After the switch, ms: twice as long as an environment goes by a route without asking. */
const ROUTES_KNOWN_MS = 60_000;

/**
 * Lets the writers of tenants in whose move the mover has died, or can't go on, while it kept them out, and lets go of homes
 * whose move was given up. The home that the catalog names is the one to open: as long as a step may still decide otherwise
 * it holds the operation's lock, and then nothing happens here. For whoever looks after things every minute; a later attempt
 * of the step finds what it needs.
 * @param catalog for this alone: what is locked here is locked for this connection
 * @returns the tenants whose writers were kept out, and those whose home could not be asked, with the error
 */
export async function releaseFences(
  plane: Omit<ControlPlane, 'keys'>,
  catalog: ControlConnection,
  now = Date.now(),
): Promise<{ slug: string; error?: unknown }[]> {
  const { rows } = await catalog.query<{ id: string; slug: string; ended: boolean }>(
    `select m.operation_id as id, t.slug, o.state <> 'running' as ended from catalog.moves m join catalog.operations o using (operation_id)
       join catalog.tenants t on t.tenant_id = m.tenant_id
       join catalog.homes h on h.home_id = t.home_id
      where o.state = 'running' or o.finished_at > now() - make_interval(days => $1) and o.state in ('failed', 'cancelled')
      -- Those that may be switching come first; of the others each has its turn within some runs.
      order by o.state = 'running' and (m.phase = 'moving' or m.wanted is not distinct from 'reverse') desc, random() limit $2`,
    [DAYS, AT_ONCE],
  );
  const found: { slug: string; error?: unknown }[] = [];
  for (const { id, slug, ended } of rows)
    try {
      if (await releaseFence(plane, catalog, id, ended, now)) found.push({ slug });
    } catch (error) {
      // Its server is away: the other tenants' turn, and this one's in a minute.
      found.push({ slug, error });
    }
  return found;
}

async function releaseFence(
  plane: Omit<ControlPlane, 'keys'>,
  catalog: ControlConnection,
  operationId: string,
  ended: boolean,
  now: number,
): Promise<boolean> {
  const { tenant } = (await readMove(catalog, operationId))!;
  const home = await presentHome(catalog, tenant);
  return withConnection(endpointOf(plane, home), async (connection) => {
    const standing = await readState(connection, home.homeId);
    // What a move that was given up still holds, no other one could move.
    if (standing?.state !== 'fenced' && !(ended && standing?.move === operationId)) return false;
    const lock = operationLock(operationId);
    const { rows } = await catalog.query<{ got: boolean }>(
      `select pg_try_advisory_lock(${lock.sql}) as got`,
      lock.values,
    );
    if (!rows[0]!.got) return false;
    try {
      // Again, now that nobody can change it any more.
      const move = (await readMove(catalog, operationId))!;
      return (
        (await presentHome(catalog, tenant)).homeId === home.homeId &&
        (await open(plane, catalog, connection, move, home, now))
      );
    } finally {
      await catalog.query(`select pg_advisory_unlock(${lock.sql})`, lock.values);
    }
  });
}

async function open(
  plane: Omit<ControlPlane, 'keys'>,
  catalog: ControlConnection,
  connection: ControlConnection,
  move: Move,
  home: ReachableHome,
  now: number,
): Promise<boolean> {
  const hold = { home, connection, mover: randomUUID() };
  const isFenced = (await claim(hold, move.operationId)) === 'fenced';
  const to = await openState(catalog, move);
  const { state: operation } = await readOperation(catalog, move.operationId);
  if (isFenced && (move.phase === 'switched' || move.phase === 'reversed'))
    await closeOther(plane, catalog, move, home, now);
  if (operation === 'running' && (move.phase === 'moving' || move.phase === 'switched')) {
    if (!isFenced) return false;
    // It goes on from here: what changes meanwhile is carried over too.
    await setState(hold, ['fenced'], to, { capturing: true });
  } else {
    await settle(hold, to);
    await release(hold, move.operationId);
  }
  return isFenced;
}

/** Calls may still go to the home that the catalog has decided against, and would miss what writers now do. */
async function closeOther(
  plane: Omit<ControlPlane, 'keys'>,
  catalog: ControlConnection,
  move: Move,
  home: ReachableHome,
  now: number,
): Promise<void> {
  const other = await findHome(catalog, home.homeId === move.sourceHome ? move.targetHome : move.sourceHome);
  if (other === undefined) return;
  try {
    await withConnection(endpointOf(plane, other), async (connection) => {
      const hold = { home: other, connection, mover: randomUUID() };
      await claim(hold, move.operationId);
      await closeSource(hold);
    });
  } catch (error) {
    // A server that does not come back must not keep writers out: by then nobody goes by a route to it.
    const isKnown = now - Number(move.switchedAt) < ROUTES_KNOWN_MS;
    if (!(error instanceof ConnectFailure) || isKnown) throw error;
  }
}
