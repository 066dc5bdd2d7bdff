import { randomUUID } from 'node:crypto';
import {
  completeMove,
  type Move,
  movesThatLeft,
  recordMove,
  setMovePhase,
  withdrawWish,
} from '../catalog/moves.ts';
import { findHome, type ReachableHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import type { Release } from '../migrations/release.ts';
import { catchUp, catchUpInPieces } from '../move/catch-up.ts';
import { copyRows } from '../move/copy.ts';
import { capture, release } from '../move/hold.ts';
import { requireFew } from '../move/limits.ts';
import { hasLanded, land, makeKeys, prepareStaging } from '../move/staging.ts';
import { requireNotInherited } from '../move/tables.ts';
import { disableTriggers, requireQuietShared } from '../move/triggers.ts';
import type { Placement, Strategy, TenantId } from '../tenant/tenant.ts';
import type { ControlPlane } from './control-plane.ts';
import { plannedHome } from './leaving-homes.ts';
import { moveOf } from './move-begin.ts';
import { type Left, leaveHome, leavesInstance, takeTargetBack } from './move-end.ts';
import { unlessEnded } from './move-late.ts';
import { withSide, withSides } from './move-sides.ts';
import { makeTarget, requireSameSchema, tellSecret } from './move-target.ts';
import {
  cancelledByOperator,
  compareAgain,
  goingOn,
  heeding,
  homeOf,
  moving,
  onTheWayBack,
  readMoveOf,
  turnOver,
} from './move-turn.ts';
import { endOperation, type Operation, operationOf } from './operations.ts';
import { failureOf, type Step } from './step.ts';

export interface MoveInput {
  /** The target's. */
  readonly homeId: string;
  readonly sourceHome: string;
  readonly from: Strategy;
  readonly slug: string;
  readonly strategy: Strategy;
  readonly placement: Placement;
  /** The shared cluster that the target is in; undefined: an instance of its own. */
  readonly clusterId?: string | undefined;
  /** Homes of this move that are an instance: another function makes and deletes them. */
  readonly instances: readonly string[];
  readonly windowSeconds: number;
}

/** What the steps work with. */
export interface Mover {
  readonly plane: ControlPlane;
  readonly release: Release;
  /** A real tool call through the data path, to the home that is not open yet. @throws TenantryError `probe_failed` */
  readonly probe: (tenant: TenantId) => Promise<void>;
  readonly clock: () => number;
}

/** How long a step goes on before it hands over to its next invocation, ms: well below a function's 15 minutes. */
const turn = 10 * 60_000;

/** The steps of `stepfunctions/move-tenant.asl.json`. Each may run twice, in parallel with itself, or die at any line. */
export const moveSteps = {
  /** The target: login, schema, tables at the source's version, and nothing in them. */
  async prepare(mover, catalog, operation) {
    const { operationId, input } = operation;
    await recordMove(catalog, moveOf(operation));
    const move = await goingOn(catalog, operationId, 'moving');
    const source = await homeOf(catalog, move.sourceHome);
    await removeRemains(mover, catalog, source);
    const target = await unlessEnded(
      mover.plane,
      catalog,
      operationId,
      (goOn) => makeTarget(mover, catalog, source, input, goOn),
      (fresh) => takeTargetBack(mover, fresh, operation),
    );
    await withSides(mover, move, { source, target }, async (sides) => {
      requireNotInherited(sides.tables);
      await requireSameSchema(mover, sides);
      await requireFew(sides.source, sides.tables, target.strategy);
      await requireQuietShared([sides.source, sides.target], sides.tables);
      await prepareStaging(sides.target, sides.tables);
      await disableTriggers(sides.target, sides.tables);
    });
  },

  async capture(mover, catalog, { operationId }) {
    await moving(mover, catalog, operationId, (sides) => capture(sides.source));
  },

  async copy(mover, catalog, { operationId }): Promise<{ more: boolean }> {
    const until = mover.clock() + turn;
    return moving(mover, catalog, operationId, async (sides) => {
      if (await hasLanded(sides.target)) return { more: false };
      return heeding(catalog, operationId, async (isWanted) => ({
        more: await copyRows(sides, () => isWanted() || mover.clock() > until),
      }));
    });
  },

  async land(mover, catalog, { operationId }): Promise<{ more: boolean }> {
    const until = mover.clock() + turn;
    return moving(mover, catalog, operationId, (sides) =>
      heeding(catalog, operationId, async (isWanted) => {
        const isOver = () => isWanted() || mover.clock() > until;
        if (!(await hasLanded(sides.target))) {
          // Again, what a crash of the target's server has made it forget.
          if (await copyRows(sides, isOver)) return { more: true };
          if (await makeKeys(sides.target, isOver)) return { more: true };
          await catchUpInPieces(sides);
        }
        if (await land(sides.target, sides.tables, isOver, isWanted)) return { more: true };
        await catchUp(sides, true);
        return { more: false };
      }),
    );
  },

  async switchOver(mover, catalog, { operationId }) {
    await turnOver(mover, catalog, operationId, { from: 'moving', to: 'switched' });
  },

  /**
   * Looks after a move in its window: keeps the way back short, and compares both homes once more.
   * @throws TenantryError `move_differs`: the move waits for the operator
   */
  async follow(mover, catalog, { operationId }): Promise<{ next: 'wait' | 'reverse' | 'complete' }> {
    const move = await readMoveOf(catalog, operationId);
    if (move.phase !== 'switched') return { next: move.phase === 'reversed' ? 'reverse' : 'complete' };
    if (move.wanted === 'reverse') return { next: 'reverse' };
    const isOver = move.wanted === 'complete' || move.windowIsOver;
    // Nothing is removed that was not compared, unless the operator knows what differs, or that it is lost, and wants it nevertheless.
    const isKnown =
      move.comparedAt !== undefined ||
      (move.wanted === 'complete' && (move.differs !== undefined || move.withoutComparison));
    if (isOver && isKnown) return { next: 'complete' };
    await onTheWayBack(mover, catalog, move, (sides) =>
      isKnown ? catchUp(sides, true).then(() => {}) : compareAgain(catalog, operationId, sides),
    );
    return { next: isOver ? 'complete' : 'wait' };
  },

  /** The source is the tenant's home again, with everything that was written since. @throws TenantryError `wrong_status`: the operator has changed his mind */
  async reverse(mover, catalog, { operationId }) {
    const { phase, wanted } = await readMoveOf(catalog, operationId);
    if (phase === 'switched' && wanted === 'complete')
      throw new TenantryError('wrong_status', 'The operator wants this move completed, not reversed.');
    try {
      await turnOver(mover, catalog, operationId, { from: 'switched', to: 'reversed' });
    } catch (error) {
      // Asked again it would find the same: the tenant stays where it is, and the operator looks.
      if (error instanceof TenantryError && ['move_differs', 'move_refused'].includes(error.code))
        await withdrawWish(catalog, operationId);
      throw error;
    }
  },

  /**
   * Only one home is left: after a reversal it is the first one.
   * @returns whether there is more to do, `instance`: by the function that may delete one, `switched`: the operator has
   *   asked for the way back meanwhile, and the move goes on
   */
  async complete(mover, catalog, operation): Promise<Left & { switched: boolean }> {
    const { operationId } = operation;
    const until = mover.clock() + turn;
    await completeMove(catalog, operationId);
    const move = await readMoveOf(catalog, operationId);
    if (move.phase === 'switched') return { more: false, instance: false, switched: true };
    const [left, kept] =
      move.phase === 'completed' ? [move.sourceHome, move.targetHome] : [move.targetHome, move.sourceHome];
    const home = await homeOf(catalog, kept);
    await tellSecret(mover.plane, catalog, home);
    const remaining = await leave(mover, catalog, { operation, move, left, kept: home, until });
    if (!remaining.more) {
      await tellSecret(mover.plane, catalog, home, true);
      await endOperation(catalog, operationId, { state: 'done' });
    }
    return { ...remaining, switched: false };
  },

  /**
   * Takes back what the move has made, when the catalog has not decided for it yet.
   * @returns `switched`: it has, and the move goes on; `cancelled`: the operator wanted it, and nothing has failed
   */
  async cancel(
    mover,
    catalog,
    operation,
    failure,
  ): Promise<Left & { switched: boolean; cancelled: boolean }> {
    const { operationId } = operation;
    const until = mover.clock() + turn;
    await setMovePhase(catalog, operationId, ['moving'], 'cancelled');
    const move = await readMoveOf(catalog, operationId);
    if (move.phase !== 'cancelled') return { more: false, instance: false, switched: true, cancelled: false };
    const cancelled = move.wanted === 'cancel';
    const kept = await homeOf(catalog, move.sourceHome);
    const remaining = await leave(mover, catalog, { operation, move, left: move.targetHome, kept, until });
    if (!remaining.more) {
      await tellSecret(mover.plane, catalog, kept, true);
      await endOperation(
        catalog,
        operationId,
        cancelled
          ? { state: 'cancelled', reason: cancelledByOperator }
          : { state: 'failed', ...failureOf(failure) },
      );
    }
    return { ...remaining, switched: false, cancelled };
  },

  /** What is left could not be removed, again and again: the operation says so; where the tenant lives is not in doubt. */
  async abandon(_, catalog, { operationId }, failure) {
    const { step, reason } = failureOf(failure);
    const both = `${reason} (What the move has made, or left, could not be removed: the tenant's next move tries again, and its offboarding.)`;
    await endOperation(catalog, operationId, { state: 'failed', step, reason: both });
  },
} as const satisfies Record<string, Step<Mover, 'move'>>;

/**
 * What earlier moves of this tenant were given up over: it would be in the way of this one.
 * @throws TenantryError `instance_left`: `removeEarlierInstances` comes first
 */
async function removeRemains(mover: Mover, catalog: ControlConnection, kept: ReachableHome): Promise<void> {
  const until = mover.clock() + turn;
  for (const operationId of await movesThatLeft(catalog, kept.tenant)) {
    const move = await readMoveOf(catalog, operationId);
    const left = move.sourceHome === kept.homeId ? move.targetHome : move.sourceHome;
    const operation = await operationOf(catalog, operationId, 'move');
    // What can't be removed now is tried again; the home in use is this move's from here on, or the next one's.
    const letGo = () => withSide(mover, move, kept, randomUUID(), (side) => release(side, operationId));
    const remaining = await leave(mover, catalog, { operation, move, left, kept, until }).catch(
      async (error) => {
        await letGo().catch(() => {});
        throw error;
      },
    );
    if (remaining.instance) {
      await letGo();
      throw new TenantryError(
        'instance_left',
        `An instance of the move ${operationId}, which was given up, is still there.`,
      );
    }
    if (remaining.more)
      throw new RetryableError('busy', 'What an earlier move has left is still being removed.', 5);
  }
}

/** The tenant lives in `kept`, and its other home goes, as far as this turn comes. */
async function leave(
  mover: Mover,
  catalog: ControlConnection,
  { operation, move, left, kept, until }: Leave,
): Promise<Left> {
  const { tenant, input } = operation;
  // A step may have died before it recorded the home that it had begun to make. An instance takes all with it.
  const isPlanned = left === input.homeId && !input.instances.includes(left);
  const planned = () => (isPlanned ? plannedHome(catalog, tenant, input) : undefined);
  const home = (await findHome(catalog, left)) ?? (await planned());
  const leaving = { kept, left: home, isInstance: leavesInstance(operation, left) };
  return leaveHome(mover, catalog, move, leaving, until);
}

interface Leave {
  readonly operation: Operation<'move'>;
  readonly move: Move;
  /** The home's id. */
  readonly left: string;
  readonly kept: ReachableHome;
  /** Unix time, ms: no further piece is begun after it. */
  readonly until: number;
}
