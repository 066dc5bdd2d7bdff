import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Batch,
  type BatchTenant,
  followMoves,
  nextWaiting,
  readBatch,
  recordBatch,
  recordBatchTenant,
  skipWaiting,
} from '../catalog/move-batches.ts';
import { type MoveCandidate, moveCandidates } from '../catalog/move-candidates.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { Tier } from '../tenant/tenant.ts';
import type { ControlPlane } from './control-plane.ts';
import { beginMove, isThere, type MoveRequest, machineInput } from './move-begin.ts';
import { beginRecorded, endOperation, type Operation, operationOfKey } from './operations.ts';
import { failureOf, type Step } from './step.ts';

/** Moves before their switch that the connection budget has room for: what `move-tenant` holds in `infra/functions.ts`. */
export const movesAtOnce = 4;

/** How long a step looks after its moves before it hands over, ms: so a week stays below Step Functions' 25,000 events. */
const TURN_MS = 5 * 60_000;
const LOOK_MS = 2_000;
/** Between two turns, s. */
const PAUSE_SECONDS = 10;

export interface BatchRequest extends Omit<MoveRequest, 'slug'> {
  readonly tier: Tier;
  /** So many are before their switch at once. */
  readonly concurrency: number;
  /** After one failure no other move is begun. */
  readonly stopOnFailure: boolean;
}

export interface Batcher {
  readonly plane: Pick<ControlPlane, 'catalog' | 'credentials' | 'tls' | 'kept'>;
  /** Starts the execution of a move; of one name there is one. */
  startMove(operationId: string, input: object): Promise<void>;
  readonly clock: () => number;
}

/** The tenants of the tier that are not there yet. */
export async function batchTenants(
  catalog: ControlConnection,
  request: Omit<BatchRequest, 'concurrency' | 'stopOnFailure' | 'windowSeconds'>,
): Promise<MoveCandidate[]> {
  const candidates = await moveCandidates(catalog, { tier: request.tier }, request.cluster);
  return candidates.filter(({ home }) => home !== undefined && !isThere(home, request));
}

/**
 * Begins to move every tenant of a tier, or answers the batch that this key has begun.
 * @throws TenantryError `move_refused` when there is nobody to move, `idempotency_conflict`, `operation_running`: one batch at a time
 */
export async function beginBatch(
  catalog: ControlConnection,
  request: BatchRequest,
  idempotencyKey?: string,
): Promise<Operation> {
  const known = idempotencyKey && (await operationOfKey(catalog, idempotencyKey, 'batch', request));
  if (known) return known;
  // Those that can't be moved now are skipped, with the reason.
  const tenants = (await batchTenants(catalog, request)).map(({ tenant, status }) => ({
    tenant,
    skipped: status === 'active' ? undefined : `It is ${status}.`,
  }));
  if (!tenants.some(({ skipped }) => skipped === undefined))
    throw new TenantryError(
      'move_refused',
      `There is no tenant of the tier ${request.tier} to move: they are where they shall go, or not active.`,
    );
  const { concurrency, stopOnFailure: stopsOnFailure } = request;
  return beginRecorded(
    catalog,
    { kind: 'batch', tenant: undefined, request, input: request, idempotencyKey },
    ({ operationId }) => recordBatch(catalog, { operationId, concurrency, stopsOnFailure }, tenants),
  );
}

/** The steps of `stepfunctions/batch-moves.asl.json`. Each may run twice, in parallel with itself, or die at any line. */
export const batchSteps = {
  /**
   * Begins as many moves as there is room for, and the next one as soon as one has switched.
   * @returns whether to ask again, and after how many seconds
   */
  async advance(batcher, catalog, operation): Promise<{ more: boolean; seconds: number }> {
    const { operationId } = operation;
    const until = batcher.clock() + TURN_MS;
    for (;;) {
      const isHeldUp = await beginMoves(batcher, catalog, operation);
      const batch = await batchOf(catalog, operationId);
      if (batch.counts.waiting + batch.counts.moving === 0) {
        await endBatch(catalog, batch);
        return { more: false, seconds: 1 };
      }
      if (isHeldUp) return { more: true, seconds: pauseOf(batcher, operation) };
      if (batcher.clock() > until) return { more: true, seconds: PAUSE_SECONDS };
      await sleep(LOOK_MS);
    }
  },

  /** Moves that were begun go on by themselves; nobody begins the others. */
  async giveUp(_, catalog, { operationId }, failure) {
    const { step, reason } = failureOf(failure);
    await followMoves(catalog, operationId);
    await skipWaiting(catalog, operationId, reason);
    const batch = await readBatch(catalog, operationId);
    if (batch?.isHalted) return endBatch(catalog, batch);
    await endOperation(catalog, operationId, { state: 'failed', step, reason }, batch?.counts);
  },
} as const satisfies Record<string, Step<Batcher, 'batch'>>;

/** @returns whether nobody can be moved now, whoever it is */
async function beginMoves(
  batcher: Batcher,
  catalog: ControlConnection,
  operation: Operation<'batch'>,
): Promise<boolean> {
  const { operationId } = operation;
  await followMoves(catalog, operationId);
  for (;;) {
    const batch = await batchOf(catalog, operationId);
    const end = endOf(batch);
    if (end !== undefined) await skipWaiting(catalog, operationId, end);
    if (end !== undefined || batch.counts.moving >= batch.concurrency) return false;
    const next = await nextWaiting(catalog, operationId);
    if (next === undefined) return false;
    if (!(await beginNext(batcher, catalog, operation, next))) return true;
  }
}

/** What an operator has halted is no failure, whatever was left: that of a single move is told by its own operation. */
async function endBatch(catalog: ControlConnection, { operationId, isHalted, counts }: Batch): Promise<void> {
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const left = all - counts.moved;
  if (left === 0) return endOperation(catalog, operationId, { state: 'done' }, counts);
  const reason = `${left} of ${all} tenants were not moved: npm run tenants -- move batch ${operationId}`;
  const end = isHalted
    ? ({ state: 'cancelled', reason: `${halted} ${reason}` } as const)
    : ({ state: 'failed', step: 'advance', reason } as const);
  return endOperation(catalog, operationId, end, counts);
}

const halted = 'An operator has halted the batch.';

/** Why no other move is begun. */
function endOf({ isHalted, stopsOnFailure, counts }: Batch): string | undefined {
  if (isHalted) return halted;
  if (stopsOnFailure && counts.failed > 0) return 'The batch stops at its first failure.';
  return undefined;
}

/** @returns false when there is reason to come again later */
async function beginNext(
  batcher: Batcher,
  catalog: ControlConnection,
  { operationId, input }: Operation<'batch'>,
  { tenant, slug }: { tenant: BatchTenant['tenant']; slug: string },
): Promise<boolean> {
  const { to, placement, cluster, windowSeconds } = input;
  try {
    // Its key makes it one move, however often a step that died is repeated.
    const operation = await beginMove(
      catalog,
      { slug, to, placement, cluster, windowSeconds },
      `batch-${operationId}-${tenant}`,
    );
    await batcher.startMove(operation.operationId, machineInput(operation));
    await recordBatchTenant(catalog, operationId, tenant, { state: 'moving', move: operation.operationId });
  } catch (error) {
    if (!(error instanceof TenantryError) || !refusals.has(error.code)) throw error;
    // A migration run ends by itself, and would refuse every other tenant too.
    if ((error.cause as { constraint?: string } | undefined)?.constraint === 'operations_apart') return false;
    await recordBatchTenant(catalog, operationId, tenant, { state: 'failed', reason: error.message });
  }
  return true;
}

/** What is about this tenant alone. */
const refusals: ReadonlySet<string> = new Set([
  'move_refused',
  'operation_running',
  'wrong_status',
  'unknown_tenant',
]);

/** While a migration run holds it up: more seldom the longer it takes, so that a week stays below Step Functions' 25,000 events. s */
const pauseOf = ({ clock }: Batcher, { startedAt }: Operation) =>
  Math.min(300, Math.max(10, Math.round((clock() - startedAt.getTime()) / 60_000)));

async function batchOf(catalog: ControlConnection, operationId: string): Promise<Batch> {
  const batch = await readBatch(catalog, operationId);
  if (batch === undefined) throw new TenantryError('internal', 'This batch was not recorded: begin another.');
  return batch;
}
