import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import type { HomeState } from '../tenant/tenant.ts';
import { type Hold, superseded } from './side.ts';

/** How long the exclusive lock is waited for at a time, ms: calls that come meanwhile wait as long. */
const LOCK_MS = 20;
/** How long the tenant's own long calls may keep the mover from its lock, ms. */
const PATIENCE_MS = 60_000;

export interface HeldHome {
  readonly state: HomeState;
  readonly epoch: number;
}

/**
 * This attempt is now the one that may work on the home; it waits for the last transaction of the one before.
 * @throws TenantryError `operation_running`: another move has it, or `internal`: it is not there
 */
export async function claim({ connection, home, mover }: Hold, move: string): Promise<HeldHome> {
  return asRole(connection, 'tenancy_keeper', async () => {
    const { rows } = await connection.query<{ state: HomeState; epoch: string }>(
      `update tenancy.homes set move_id = $2, mover = $3 where home_id = $1 and (move_id is null or move_id = $2) returning state, epoch`,
      [home.homeId, move, mover],
    );
    if (rows[0] !== undefined) return { state: rows[0].state, epoch: Number(rows[0].epoch) };
    const { rows: there } = await connection.query('select from tenancy.homes where home_id = $1', [
      home.homeId,
    ]);
    throw there.length > 0
      ? new TenantryError('operation_running', 'Another move holds this home.')
      : new TenantryError('internal', 'The home is not in its own database.');
  });
}

/** As its own database says; undefined: it is not there. */
export async function readState(
  connection: ControlConnection,
  homeId: string,
): Promise<HomeState | undefined> {
  const { rows } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query<{ state: HomeState }>('select state from tenancy.homes where home_id = $1', [homeId]),
  );
  return rows[0]?.state;
}

/** A step may have died before its home was there. */
export const isRegistered = async (connection: ControlConnection, homeId: string): Promise<boolean> =>
  (await readState(connection, homeId)) !== undefined;

/** Serves as before the move: a fenced home is what `open` says, and no call captures any more when this returns. */
export async function settle(side: Hold, open: 'open' | 'suspended'): Promise<void> {
  const { connection, home, mover } = side;
  const { rowCount } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query(
      `update tenancy.homes set capturing = false, state = case state when 'fenced' then $3 else state end
        where home_id = $1 and mover = $2`,
      [home.homeId, mover, open],
    ),
  );
  if (rowCount !== 1) throw superseded();
  await withoutWriters(side, async () => {});
}

/** The move is over for this home: nothing is captured any more, and no attempt of it can change it. */
export async function release({ connection, home }: Hold, move: string): Promise<void> {
  await asRole(connection, 'tenancy_keeper', () =>
    connection.query(
      'update tenancy.homes set capturing = false, move_id = null, mover = null where home_id = $1 and move_id = $2',
      [home.homeId, move],
    ),
  );
}

/** @throws TenantryError `operation_ended` when another attempt has the home, or it is in none of the states `from` */
export async function setState(
  { connection, home, mover }: Hold,
  from: readonly HomeState[],
  to: HomeState,
  { capturing, epoch }: { capturing: boolean; epoch?: number },
): Promise<void> {
  const { rowCount } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query(
      `update tenancy.homes set state = $4, capturing = $5, epoch = coalesce($6, epoch)
        where home_id = $1 and mover = $2 and state = any ($3)`,
      [home.homeId, mover, [...from], to, capturing, epoch ?? null],
    ),
  );
  if (rowCount !== 1) throw superseded();
}

/** From here on every change of the tenant leaves its key: calls that began before it did are waited for. */
export async function capture(side: Hold): Promise<void> {
  const { connection, home, mover } = side;
  const { rowCount } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query('update tenancy.homes set capturing = true where home_id = $1 and mover = $2', [
      home.homeId,
      mover,
    ]),
  );
  if (rowCount !== 1) throw superseded();
  await withoutWriters(side, async () => {});
}

/**
 * No writer is under way when this returns, and none is let in; readers go on.
 * @returns since when, as performance.now() counts
 */
export const fence = (side: Hold): Promise<number> =>
  withoutWriters(side, async () => {
    const from = performance.now();
    const { connection, home, mover } = side;
    const { rows } = await connection.query<{ state: HomeState }>(
      `update tenancy.homes set state = 'fenced' where home_id = $1 and mover = $2 and state in ('open', 'fenced') returning state`,
      [home.homeId, mover],
    );
    if (rows.length === 0) throw superseded();
    return from;
  });

/**
 * Runs `work` as the keeper while no writing call of the home is under way. The lock is tried for a moment only, because
 * calls that come after a waiting mover wait with it: one long writer delays the move, not the tenant.
 */
async function withoutWriters<T>({ connection, home }: Hold, work: () => Promise<T>): Promise<T> {
  const until = Date.now() + PATIENCE_MS;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await asRole(connection, 'tenancy_keeper', async () => {
        await connection.query(
          `set local lock_timeout = ${LOCK_MS};
           select pg_advisory_xact_lock(lock_key) from tenancy.homes where home_id = '${home.homeId}';
           set local lock_timeout = '5s'`,
        );
        return work();
      });
    } catch (error) {
      if ((error as { code?: string }).code !== '55P03') throw error;
      if (Date.now() > until)
        throw new RetryableError('busy', 'A call of the tenant has been writing all the time.', 5, {
          cause: error,
        });
    }
    await sleep(20 + Math.random() * Math.min(20 * 2 ** attempt, 1_000));
  }
}
