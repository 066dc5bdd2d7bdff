import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import type { HomeState } from '../tenant/tenant.ts';
import { becomeOwner, type Hold, type Side, superseded } from './side.ts';

/** How long the exclusive lock is waited for at a time, ms: calls that come meanwhile wait as long. */
const LOCK_MS = 20;
/** How long the tenant's own long calls may keep the mover from its lock, ms. */
const PATIENCE_MS = 60_000;

/**
 * This attempt is now the one that may work on the home; it waits for the last transaction of the one before.
 * @returns the home's state
 * @throws TenantryError `operation_running`: another move has it, or `internal`: it is not there
 */
export async function claim({ connection, home, mover }: Hold, move: string): Promise<HomeState> {
  return asRole(connection, 'tenancy_keeper', async () => {
    const { rows } = await connection.query<{ state: HomeState }>(
      `update tenancy.homes set move_id = $2, mover = $3 where home_id = $1 and (move_id is null or move_id = $2) returning state`,
      [home.homeId, move, mover],
    );
    if (rows[0] !== undefined) return rows[0].state;
    const { rows: there } = await connection.query('select from tenancy.homes where home_id = $1', [
      home.homeId,
    ]);
    throw there.length > 0
      ? new TenantryError('operation_running', 'Another move holds this home.')
      : new TenantryError('internal', 'The home is not in its own database.');
  });
}

/** As the keeper: until the end of this transaction no other attempt has the home. @throws TenantryError `operation_ended` when one has */
export async function requireHold({ connection, home, mover }: Hold): Promise<void> {
  const { rowCount } = await connection.query(
    'select from tenancy.homes where home_id = $1 and mover = $2 for share',
    [home.homeId, mover],
  );
  if (rowCount !== 1) throw superseded();
}

/** As its own database says, and which move has it; undefined: it is not there. */
export async function readState(
  connection: ControlConnection,
  homeId: string,
): Promise<{ state: HomeState; move: string | null } | undefined> {
  const { rows } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query<{ state: HomeState; move: string | null }>(
      'select state, move_id as move from tenancy.homes where home_id = $1',
      [homeId],
    ),
  );
  return rows[0];
}

/** A step may have died before its home was there. */
export const isRegistered = async (connection: ControlConnection, homeId: string): Promise<boolean> =>
  (await readState(connection, homeId)) !== undefined;

/** Lets writers in again where they were kept out; a home that was suspended or resumed meanwhile stays so. */
export async function letWritersIn(
  { connection, home, mover }: Hold,
  open: 'open' | 'suspended',
  capturing: boolean,
): Promise<void> {
  const { rowCount } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query(
      `update tenancy.homes set capturing = $4, state = case state when 'fenced' then $3 else state end
        where home_id = $1 and mover = $2`,
      [home.homeId, mover, open, capturing],
    ),
  );
  if (rowCount !== 1) throw superseded();
}

/** Serves as before the move, and no call captures any more when this returns. */
export async function settle(side: Hold, open: 'open' | 'suspended'): Promise<void> {
  await letWritersIn(side, open, false);
  await withoutWriters(side, () => side.connection.query('commit'));
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
  next: Next,
): Promise<void> {
  try {
    // One round trip: of these, writers wait for two.
    const unflushed = next.isFlushed === false ? 'set local synchronous_commit = off;' : '';
    await connection.query(`begin; ${unflushed} ${becoming({ home, mover }, from, to, next)}; commit`);
  } catch (error) {
    await connection.query('rollback').catch(() => {});
    throw notMine(error);
  }
}

export interface Next {
  readonly capturing: boolean;
  /** false: need not outlive a crash of the server. Whatever is written because of it does, and it comes before that. */
  readonly isFlushed?: boolean;
  /** Unless it stays what it is. */
  readonly epoch?: number;
  /** SQL that goes before it, in the same transaction. */
  readonly first?: string;
}

/** The same, for the end of a transaction. */
export const becoming = (
  side: Pick<Hold, 'home' | 'mover'>,
  from: readonly HomeState[],
  to: HomeState,
  { capturing, epoch, first = '' }: Next,
) =>
  `${first} set local role tenancy_keeper;
   ${changed(`set state = '${to}', capturing = ${capturing}, epoch = ${epoch ?? 'epoch'}`, side, from)}`;

/** An update of the home by this attempt alone, while it is in one of these states; for a script. */
const changed = (change: string, { home, mover }: Pick<Hold, 'home' | 'mover'>, from: readonly HomeState[]) =>
  `do $$ begin
     update tenancy.homes ${change} where home_id = '${home.homeId}' and mover = '${mover}' and state in (${from.map((state) => `'${state}'`).join(', ')});
     if not found then raise exception 'superseded' using errcode = 'TN010'; end if;
   end $$`;

const notMine = (error: unknown) => ((error as { code?: string }).code === 'TN010' ? superseded() : error);

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
  await withoutWriters(side, () => connection.query('commit'));
}

export interface Fenced<R> {
  /** Since when no writer was under way, as performance.now() counts. */
  readonly from: number;
  readonly rows: readonly R[];
  /** Until then a crash of the server would let writers in again: nothing may be decided before. */
  readonly isKept: Promise<unknown>;
}

/** No writer is under way when this returns, and none is let in; readers go on. @param read what is asked at that moment */
export async function fence<R>(side: Side, read = ''): Promise<Fenced<R>> {
  const { connection } = side;
  return withoutWriters(side, async (from) => {
    const fenced = changed("set state = 'fenced'", side, ['open', 'fenced']);
    const { rows } = await connection.query<R>(`${fenced}; ${becomeOwner(side, 'w')}; ${read}`);
    const isKept = connection.query('commit');
    // Whoever waits for it hears of it.
    isKept.catch(() => {});
    return { from, rows, isKept };
  });
}

/**
 * Does `work`, as the keeper and up to its commit, while no writing call of the home is under way. The lock is tried for a
 * moment only, because calls that come after a waiting mover wait with it: one long writer delays the move, not the tenant.
 */
async function withoutWriters<T>({ connection, home }: Hold, work: (from: number) => Promise<T>): Promise<T> {
  const until = Date.now() + PATIENCE_MS;
  for (let attempt = 0; ; attempt += 1) {
    try {
      await connection.query(
        `begin; set local role tenancy_keeper; set local lock_timeout = ${LOCK_MS};
         select pg_advisory_xact_lock(lock_key) from tenancy.homes where home_id = '${home.homeId}';
         set local lock_timeout = '5s'`,
      );
      return await work(performance.now());
    } catch (error) {
      await connection.query('rollback').catch(() => {});
      if ((error as { code?: string }).code !== '55P03') throw notMine(error);
      if (Date.now() > until)
        throw new RetryableError('busy', 'A call of the tenant has been writing all the time.', 5, {
          cause: error,
        });
    }
    await sleep(20 + Math.random() * Math.min(20 * 2 ** attempt, 1_000));
  }
}
