import { setTimeout as sleep } from 'node:timers/promises';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { type ControlPlane, catalogEndpoint } from './control-plane.ts';
import { readMoveOf } from './move-turn.ts';
import { operationLock } from './step.ts';

/** How long another step of the move is waited for, s. */
const PATIENCE = 60;

/**
 * Makes what `cancel` removes. The operation's lock goes with the connection to the catalog: an attempt that has lost it and
 * works on elsewhere may come after the cancellation, and nobody else would look for what it has made then.
 * @param make calls `goOn` before whatever it makes
 * @param takeBack removes it; with a connection that holds the operation's lock
 * @throws TenantryError `operation_ended` when the move has ended meanwhile
 */
export async function unlessEnded<T>(
  plane: ControlPlane,
  catalog: ControlConnection,
  operationId: string,
  make: (goOn: () => Promise<void>) => Promise<T>,
  takeBack: (catalog: ControlConnection) => Promise<void>,
): Promise<T> {
  // On the connection that has the lock, and on no other.
  const goOn = async () => {
    const { phase } = await readMoveOf(catalog, operationId);
    if (phase !== 'moving') throw new TenantryError('operation_ended', `This move is ${phase} already.`);
  };
  try {
    const made = await make(goOn);
    await goOn();
    return made;
  } catch (error) {
    const isStill = await goOn().then(
      () => true,
      () => false,
    );
    if (!isStill)
      await withConnection(catalogEndpoint(plane), (fresh) => takeBackLocked(fresh, operationId, takeBack));
    throw error;
  }
}

/** Before the end of the move whoever ends it removes everything; another attempt that goes on needs it. */
async function takeBackLocked(
  catalog: ControlConnection,
  operationId: string,
  takeBack: (catalog: ControlConnection) => Promise<void>,
): Promise<void> {
  const { sql, values } = operationLock(operationId);
  const lock = async () =>
    (await catalog.query<{ got: boolean }>(`select pg_try_advisory_lock(${sql}) as got`, values)).rows[0]!
      .got;
  for (let waited = 0; !(await lock()); waited += 1) {
    if (waited === PATIENCE) return;
    await sleep(1_000);
  }
  try {
    const { phase } = await readMoveOf(catalog, operationId);
    if (phase === 'cancelled') await takeBack(catalog);
  } finally {
    await catalog.query(`select pg_advisory_unlock(${sql})`, values);
  }
}
