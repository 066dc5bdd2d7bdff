import type { WorkflowState } from '../aws/step-functions.ts';
import { executionName, readMove } from '../catalog/moves.ts';
import { changeTenantStatus } from '../catalog/tenants.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { endOperation, type Operation, type OperationKind, readOperation } from '../lifecycle/operations.ts';
import { operationLock } from '../lifecycle/step.ts';
import { type Admin, withCatalog } from './admin.ts';
import type { OperationView } from './operations.ts';

/** As long as nothing has happened for less, nobody asks whether the state machine still runs, ms. */
const quietMs = 5_000;
/** A request that dies between its operation and its execution leaves none; who is slower than this has died, ms. */
const startsWithinMs = 60_000;

/**
 * Whoever looks ends what nobody else will: an operation whose state machine was stopped, ran out of time or never began would
 * block its tenant for ever. The same machine is started once more, only to take back or to say what failed; when that has
 * ended too, the operation ends here. A machine that can't be asked changes nothing.
 * @returns whether anything was done
 */
export async function endStalled(
  admin: Admin,
  operations: readonly OperationView[],
  now = Date.now(),
): Promise<boolean> {
  let isAnyEnded = false;
  for (const view of operations) {
    if (view.state !== 'running' || now - Date.parse(view.activeAt) < quietMs) continue;
    isAnyEnded = (await endIfStalled(admin, view, now).catch(unlessUnasked)) || isAnyEnded;
  }
  return isAnyEnded;
}

async function endIfStalled(admin: Admin, view: OperationView, now: number): Promise<boolean> {
  const machine = admin.settings[`${view.kind}Machine`];
  const execution = await executionOf(admin, view);
  if (execution === undefined) return false;
  const ended = await endOf(admin, machine, execution.name);
  const isLate = now - execution.startedAt > startsWithinMs;
  if (ended === 'runs' || (ended === 'never began' && !isLate)) return false;
  const operation = await withCatalog(admin, (catalog) => readOperation(catalog, view.id));
  // Its own last step may have come in between.
  if (operation.state !== 'running') return false;
  // A tenant on shared tables needs no machine; what is not new there, and the watch's own canaries, have one.
  if (ended === 'never began' && isAnsweredAtOnce(operation)) return false;

  const reason = `Its state machine ${ended} without ending the operation.`;
  const failedStep = view.step ?? 'start';
  const last = `${view.id}-end`;
  const taken = await endOf(admin, machine, last);
  if (taken === 'never began') {
    const failure = { Error: 'ExecutionEnded', Cause: JSON.stringify({ errorMessage: reason }) };
    await admin.workflows.start(machine, last, { operation: view.id, input: {}, failedStep, failure });
    return true;
  }
  if (taken === 'runs') return false;
  return withCatalog(admin, async (catalog) => {
    // A function outlives its execution: a step that is at work could still do what another operation then does not expect.
    const lock = operationLock(view.id);
    const { rows } = await catalog.query(`select pg_try_advisory_lock(${lock.sql}) as got`, lock.values);
    if (!rows[0]!.got || (await readOperation(catalog, view.id)).state !== 'running') return false;
    if (operation.kind === 'provision')
      await changeTenantStatus(catalog, operation.tenant, ['provisioning'], 'failed');
    const both = `${reason} ${remedies[operation.kind]}`;
    await endOperation(catalog, view.id, { state: 'failed', step: failedStep, reason: both });
    return true;
  });
}

/** What the operator does about an operation that nobody works on any more. */
const remedies: Record<OperationKind, string> = {
  provision: 'What it had made may still be there: create the tenant again, or offboard it.',
  offboard: 'Offboard the tenant again: that goes on with what is left.',
  migrate: '`npm run tenants -- migrate resume` goes on with what is left.',
  move: 'The tenant is served where it lives; what the move has left beside it goes with its next move.',
  batch: 'Moves that were begun go on; begin another batch for the rest.',
  export: 'Begin another export: its files are not complete.',
  import: 'Look whether its rows are there before you begin another import: it brings all of them or none.',
};

/** The one that should run now. Undefined: a move that is paused has none. */
async function executionOf(
  admin: Admin,
  { id, kind, startedAt }: OperationView,
): Promise<{ name: string; startedAt: number } | undefined> {
  const move = kind === 'move' ? await withCatalog(admin, (catalog) => readMove(catalog, id)) : undefined;
  if (move === undefined) return { name: id, startedAt: Date.parse(startedAt) };
  if (move.pausedAt !== undefined) return undefined;
  return { name: executionName(move), startedAt: move.resumedAt?.getTime() ?? Date.parse(startedAt) };
}

const isAnsweredAtOnce = ({ kind, input }: Operation) =>
  kind === 'provision' && !isolations[input.strategy].ownsTables;

/** What became of an execution, in words. */
async function endOf({ workflows }: Admin, machine: string, name: string): Promise<string> {
  const execution = `${machine.replace(':stateMachine:', ':execution:')}:${name}`;
  const state = await workflows.describe(execution);
  return state === undefined ? 'never began' : words[state.status];
}

const words: Record<WorkflowState['status'], string> = {
  RUNNING: 'runs',
  SUCCEEDED: 'ended',
  FAILED: 'failed',
  TIMED_OUT: 'ran out of time',
  ABORTED: 'was stopped',
};

function unlessUnasked(error: unknown): false {
  if (error instanceof TenantryError) return false;
  throw error;
}
