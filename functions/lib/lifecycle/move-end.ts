import { randomUUID } from 'node:crypto';
import { instanceName } from '../aws/rds.ts';
import { forgetLeftHome, type Move } from '../catalog/moves.ts';
import { findHome, homesOf, presentHome, type ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { isLost } from '../database/failure.ts';
import { TenantryError } from '../errors.ts';
import { dropDatabase } from '../isolation/homes.ts';
import { isolations } from '../isolation/isolation.ts';
import { deleteRows, forgetChanges } from '../move/clean-up.ts';
import { isRegistered, release, setState, settle } from '../move/hold.ts';
import { reading } from '../move/side.ts';
import { dropHeldStaging, dropStaging } from '../move/staging.ts';
import { readTables } from '../move/tables.ts';
import { endpointOf } from './control-plane.ts';
import { droppingLogin } from './drop-login.ts';
import { plannedHome } from './leaving-homes.ts';
import type { Mover } from './move.ts';
import { withSide } from './move-sides.ts';
import { secretOf } from './move-target.ts';
import { type Operation, report } from './operations.ts';

/** What is still to be done; `instance`: by the function that may delete one, before anything else. */
export interface Left {
  readonly more: boolean;
  readonly instance: boolean;
}

interface Leaving {
  readonly kept: ReachableHome;
  /** undefined: it is gone already. */
  readonly left: ReachableHome | undefined;
  /** It is an instance that is still to be deleted. */
  readonly isInstance: boolean;
}

/** Whether this home is an instance that is still to be deleted. */
export const leavesInstance = ({ input, result }: Operation<'move'>, homeId: string): boolean =>
  input.instances.includes(homeId) && result.removedInstance !== instanceName(homeId);

/** The tenant lives in `kept`, and what the move has made beside it goes, with the other home. Safe to repeat. */
export async function leaveHome(
  mover: Mover,
  catalog: ControlConnection,
  move: Move,
  { left, kept, isInstance }: Leaving,
  until: number,
): Promise<Left> {
  // What follows deletes a home: never the one in use, whoever asks.
  const present = await presentHome(catalog, move.tenant);
  if (present.homeId !== kept.homeId || left?.homeId === kept.homeId)
    throw new TenantryError(
      'internal',
      'The tenant lives in another home than this move knows: nothing was removed.',
    );
  const attempt = randomUUID();
  await withSide(mover, move, kept, attempt, async (side) => {
    await settle(side, await openState(catalog, move));
    await dropHeldStaging(side);
    await forgetChanges(side);
  });
  if (isInstance) return { more: true, instance: true };
  if (left !== undefined && (await remove(mover, catalog, move, left, kept, () => mover.clock() > until)))
    return { more: true, instance: false };
  await withSide(mover, move, kept, attempt, (side) => release(side, move.operationId));
  return { more: false, instance: false };
}

/** A tenant that was suspended while its home was fenced, or whose offboarding has begun, stays suspended. */
export async function openState(catalog: ControlConnection, { tenant }: Move): Promise<'open' | 'suspended'> {
  const { rows } = await catalog.query('select status from catalog.tenants where tenant_id = $1', [tenant]);
  return rows[0]!.status === 'active' ? 'open' : 'suspended';
}

type Removing = Pick<Move, 'operationId' | 'withoutComparison'>;

/** Rows, tables, database, login and secret of a home that nobody lives in. @returns whether there is more to do */
async function remove(
  mover: Mover,
  catalog: ControlConnection,
  move: Removing,
  home: ReachableHome,
  kept: ReachableHome,
  isOver: () => boolean,
): Promise<boolean> {
  try {
    if (await empty(mover, move, home, isOver)) return true;
  } catch (error) {
    if (!move.withoutComparison || !isLost(error)) throw error;
    const { homeId, clusterId, database, schema } = home;
    await report(catalog, move.operationId, {
      notRemoved: `home ${homeId}: schema ${schema} in database ${database} of cluster ${clusterId}, which is not there`,
    });
  }
  await forget(mover, catalog, home, kept);
  return false;
}

/** What there is of it in its server. @returns whether there is more to do */
async function empty(
  mover: Mover,
  move: Pick<Move, 'operationId'>,
  home: ReachableHome,
  isOver: () => boolean,
): Promise<boolean> {
  const { plane } = mover;
  const { strategy, homeId, login } = home;
  const isolation = isolations[strategy];
  if (isolation.place('shared-cluster') === 'database') {
    await droppingLogin(plane, home, login, () =>
      withConnection(endpointOf(plane, home, 'postgres'), (connection) =>
        dropDatabase(connection, home.database, login),
      ),
    );
  } else {
    const isThere = await withConnection(endpointOf(plane, home), (connection) =>
      isRegistered(connection, homeId),
    );
    if (isThere) {
      const more = await withSide(mover, move, home, randomUUID(), async (side) => {
        await setState(side, ['provisioning', 'open', 'fenced', 'suspended', 'moved'], 'moved', {
          capturing: false,
        });
        if (!isolation.ownsTables) {
          const tables = await reading(side, () => readTables(side));
          if (await deleteRows(side, tables, isOver)) return true;
        }
        await forgetChanges(side);
        return false;
      });
      if (more) return true;
    }
    await droppingLogin(plane, home, login, () =>
      withConnection(endpointOf(plane, home), async (connection) => {
        await dropStaging({ connection, home });
        await isolation.deprovision(connection, home);
      }),
    );
  }
  return false;
}

async function forget(
  { plane }: Mover,
  catalog: ControlConnection,
  home: ReachableHome,
  kept: ReachableHome,
): Promise<void> {
  const secret = secretOf(plane, home);
  if (secret !== undefined && secret !== secretOf(plane, kept)) await plane.secrets.remove(secret);
  await forgetLeftHome(catalog, home.homeId);
}

/** What an attempt of `prepare` has made after the cancellation had removed all that was there. */
export async function takeTargetBack(
  mover: Mover,
  catalog: ControlConnection,
  { operationId, tenant, input }: Operation<'move'>,
): Promise<void> {
  const isInstance = input.instances.includes(input.homeId);
  const found = await findHome(catalog, input.homeId);
  const home = found ?? (isInstance ? undefined : await plannedHome(catalog, tenant, input));
  if (home === undefined) return;
  const others = (await homesOf(catalog, tenant)).filter(({ homeId }) => homeId !== input.homeId);
  // The tenant's next move may have one under way that has the same secret.
  const secret = secretOf(mover.plane, home);
  const kept =
    others.find((other) => secretOf(mover.plane, other) === secret) ?? (await presentHome(catalog, tenant));
  if (kept.homeId === input.homeId) return;
  // An instance has gone with all that was in it.
  if (isInstance) await forget(mover, catalog, home, kept);
  else await remove(mover, catalog, { operationId, withoutComparison: false }, home, kept, () => false);
}
