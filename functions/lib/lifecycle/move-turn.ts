import {
  type Move,
  type MovePhase,
  pauseMove,
  readMove,
  recordComparison,
  recordSwitch,
  switchHome,
} from '../catalog/moves.ts';
import { findHome, type ReachableHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import type { Sides } from '../move/catch-up.ts';
import { stays } from '../move/diff.ts';
import { readState, setState } from '../move/hold.ts';
import { prepareStaging } from '../move/staging.ts';
import { closeSource, compareInFull, handOver, switchOver, unfence } from '../move/switch.ts';
import { disableTriggers } from '../move/triggers.ts';
import type { Mover } from './move.ts';
import { openState } from './move-end.ts';
import { withSides } from './move-sides.ts';
import { tellSecret } from './move-target.ts';
import { tryPath } from './probe.ts';

/** How often long work looks up what the operator wants, ms. */
const LOOK_MS = 1_000;

/** One attempt before the switch, with both homes in hand. @throws TenantryError `move_cancelled` when the operator wants it to end */
export async function moving<T>(
  mover: Mover,
  catalog: ControlConnection,
  operationId: string,
  work: (sides: Sides) => Promise<T>,
): Promise<T> {
  const move = await goingOn(catalog, operationId, 'moving');
  const homes = {
    source: await homeOf(catalog, move.sourceHome),
    target: await homeOf(catalog, move.targetHome),
  };
  return withSides(mover, move, homes, work);
}

/** From the home in use back to the one before it, which holds what it held at the switch. */
export async function onTheWayBack<T>(
  mover: Mover,
  catalog: ControlConnection,
  move: Move,
  work: (sides: Sides) => Promise<T>,
): Promise<T> {
  const homes = {
    source: await homeOf(catalog, move.targetHome),
    target: await homeOf(catalog, move.sourceHome),
  };
  // The step that switched may have died before it told what the catalog had decided.
  await tellSecret(mover.plane, catalog, homes.source);
  return withSides(mover, move, homes, async (sides) => {
    await closeSource(sides.target);
    await prepareStaging(sides.target, sides.tables, true);
    await disableTriggers(sides.target, sides.tables);
    return work(sides);
  });
}

const isTheOperators =
  'The tenant lives in its new home, and the other is kept. Change these rows through the service, and they are carried over and compared again; or complete the move as it is.';

/** After the switch: the home in use against the one that was left. @throws TenantryError `move_differs` */
export async function compareAgain(
  catalog: ControlConnection,
  operationId: string,
  sides: Sides,
): Promise<void> {
  await compareInFull(sides).catch((error) => keepingKeys(catalog, operationId, error, isTheOperators));
  await recordComparison(catalog, operationId, undefined);
}

/** Keys are values of the tenant: its operators read them in the catalog, and the state machine's history holds none. */
async function keepingKeys(
  catalog: ControlConnection,
  operationId: string,
  error: unknown,
  remedy: string,
): Promise<never> {
  if (!(error instanceof TenantryError) || error.code !== 'move_differs') throw error;
  await recordComparison(catalog, operationId, error.message.replace(stays, remedy));
  throw new TenantryError(
    'move_differs',
    `The two homes hold different rows, which \`npm run tenants -- move status\` names. ${remedy}`,
  );
}

/** There or back. What the catalog says when an attempt begins is settled: earlier ones can't reach it any more (see `runStep`). */
export async function turnOver(
  mover: Mover,
  catalog: ControlConnection,
  operationId: string,
  phase: { readonly from: MovePhase; readonly to: MovePhase },
): Promise<void> {
  const move = await readMoveOf(catalog, operationId);
  const isBack = phase.to === 'reversed';
  const [from, to] = isBack ? [move.targetHome, move.sourceHome] : [move.sourceHome, move.targetHome];
  const homes = { source: await homeOf(catalog, from), target: await homeOf(catalog, to) };
  // What is under way back is neither cancelled nor paused.
  const goOn = async () => {
    if (!isBack) await goingOn(catalog, operationId, phase.from);
  };
  if (move.phase === phase.from) {
    await goOn();
    await requireActive(catalog, move, isBack);
    const epoch = homes.source.epoch + 1;
    let isDecided: boolean | 'asked' = false;
    try {
      await withSides(mover, move, homes, async (sides) => {
        if (isBack) await closeSource(sides.target);
        const standing = await readState(sides.source.connection, from);
        if (standing?.state === 'suspended')
          throw new RetryableError(
            'busy',
            'The tenant is active, but its home is suspended: resume it again.',
            5,
          );
        await unfence(sides, 'open');
        // The way back leads to a home that has served before.
        if (isBack) await prepareStaging(sides.target, sides.tables, true);
        else await tryPath(mover.probe, move.tenant);
        const decide = async () => {
          isDecided = 'asked';
          isDecided = await switchHome(catalog, move, phase, { from, to, epoch });
          if (isDecided) return;
          await goOn();
          throw new TenantryError(
            'wrong_status',
            'The tenant was suspended, or the move ended, before the switch.',
          );
        };
        const switched = await switchOver(sides, epoch, decide, goOn);
        // Whoever suspended the tenant meanwhile found its home fenced, and could not tell it.
        if ((await openState(catalog, move)) === 'suspended')
          await setState(sides.target, ['open', 'suspended'], 'suspended', { capturing: true });
        await recordSwitch(catalog, operationId, switched);
      });
    } catch (error) {
      // Writers wait no longer than they must; where this fails, the next attempt or the cancellation does it.
      if (isDecided === false) await reopen(mover, catalog, move, homes).catch(() => {});
      // Suspended while it was compared, the home can't be fenced any more.
      if (isDecided === false) await requireActive(catalog, move, isBack);
      await keepingKeys(catalog, operationId, error, isBack ? isTheOperators : stays);
    }
  } else if (move.phase === phase.to) {
    const state = await openState(catalog, move);
    await withSides(mover, move, homes, (sides) => handOver(sides, state));
  } else throw new TenantryError('operation_ended', `This move is ${move.phase} already.`);
  await tellSecret(mover.plane, catalog, homes.target);
}

/** @throws TenantryError `wrong_status` before the switch; RetryableError `busy` on the way back, which waits for the tenant */
async function requireActive(catalog: ControlConnection, move: Move, isBack: boolean): Promise<void> {
  if ((await openState(catalog, move)) === 'open') return;
  if (isBack)
    throw new RetryableError('busy', 'The tenant is suspended: once it is resumed, it is moved back.', 5);
  throw new TenantryError('wrong_status', 'The tenant is suspended: resume it, then move it again.');
}

async function reopen(
  mover: Mover,
  catalog: ControlConnection,
  move: Move,
  homes: { source: ReachableHome; target: ReachableHome },
): Promise<void> {
  const state = await openState(catalog, move);
  await withSides(mover, move, homes, (sides) => unfence(sides, state));
}

export async function readMoveOf(catalog: ControlConnection, operationId: string): Promise<Move> {
  const move = await readMove(catalog, operationId);
  if (move === undefined)
    throw new TenantryError('internal', 'This move is not prepared yet: run prepare first.');
  return move;
}

export const cancelledByOperator = 'The operator has cancelled this move.';

export async function goingOn(
  catalog: ControlConnection,
  operationId: string,
  phase: MovePhase,
): Promise<Move> {
  const move = await readMoveOf(catalog, operationId);
  if (move.phase !== phase) throw new TenantryError('operation_ended', `This move is ${move.phase} already.`);
  if (move.wanted === 'cancel') throw new TenantryError('move_cancelled', cancelledByOperator);
  if (move.pausedAt !== undefined || (move.wanted === 'pause' && (await pauseMove(catalog, operationId))))
    throw new TenantryError('move_paused', 'The operator has paused this move.');
  return move;
}

/** Looks, beside long work, whether the operator wants something else: it need not wait for the work's end. */
export async function heeding<T>(
  catalog: ControlConnection,
  operationId: string,
  work: (isWanted: () => boolean) => Promise<T>,
): Promise<T> {
  let wanted = false;
  let look: Promise<void> | undefined;
  const timer = setInterval(() => {
    look ??= readMove(catalog, operationId)
      .then((move) => {
        wanted ||= move?.wanted !== undefined;
      })
      // Whoever works will notice that the catalog is away.
      .catch(() => {})
      .finally(() => {
        look = undefined;
      });
  }, LOOK_MS);
  try {
    return await work(() => wanted);
  } finally {
    clearInterval(timer);
    await look;
  }
}

export async function homeOf(catalog: ControlConnection, homeId: string): Promise<ReachableHome> {
  const home = await findHome(catalog, homeId);
  if (home === undefined)
    throw new TenantryError('internal', 'A home of this move is not there: run prepare first.');
  return home;
}
