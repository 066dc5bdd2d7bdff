import { z } from 'zod';
import {
  completeUncompared,
  executionName,
  type Move,
  type MoveWish,
  readMove,
  resumeMove,
  wishMove,
} from '../catalog/moves.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { beginMove, machineInput } from '../lifecycle/move-begin.ts';
import type { MovePlan } from '../lifecycle/move-plan.ts';
import { operationOf } from '../lifecycle/operations.ts';
import { placements, strategies } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { type OperationView, operationViews } from './operations.ts';
import { afterStalled, findTenant } from './tenants.ts';

export const moving = z.strictObject({
  to: z.enum(strategies),
  /** Of a database: an instance of its own unless another is asked for. */
  placement: z.enum(placements).optional(),
  /** The shared cluster to go to. */
  cluster: z.uuid().optional(),
  /** How long the way back stays open after the switch, s; until `complete` at the latest. */
  windowSeconds: z.int().min(0).max(86_400).default(3_600),
});
export type MovingBody = z.output<typeof moving>;

export const completing = z.strictObject({
  /** The home that was left is lost, or shall not be looked at any more. */
  withoutComparison: z.boolean().default(false),
});

export interface MoveView {
  readonly tenant: string;
  readonly operation: OperationView;
  readonly from: string;
  readonly to: string;
  readonly phase: Move['phase'];
  /** What was asked for and is not done yet. */
  readonly wanted: MoveWish | null;
  /** Its tenant is: before the switch the move fails, after it there is no way back, until that is undone. */
  readonly isSuspended: boolean;
  /** Since when nothing is copied, until it is resumed or cancelled. */
  readonly pausedAt: string | null;
  readonly switchedAt: string | null;
  /** Until then it can be reversed. */
  readonly windowEndsAt: string | null;
  /** How long writers waited, ms. */
  readonly pauseMs: number | null;
  /** When both homes were seen to hold the same after the switch; until then the move does not complete by itself. */
  readonly comparedAt: string | null;
  /** Which rows differ, by their keys. */
  readonly differs: string | null;
  /** Of each table, when both homes were compared in full. */
  readonly rows: Readonly<Record<string, number>> | null;
  /** What was left of the other home, whose server was not there. */
  readonly notRemoved: string | null;
}

/** What a move would carry, and what keeps it from beginning. Nothing is changed. @throws TenantryError `unknown_tenant` */
export const planTenantMove = (admin: Admin, slug: string, body: MovingBody): Promise<MovePlan> =>
  withCatalog(admin, async (catalog) => {
    await findTenant(catalog, slug);
    // A good part of this function's load time, and seldom asked for.
    const { planMove } = await import('../lifecycle/move-plan.ts');
    return planMove(admin.plane, catalog, { slug, ...destined(body) });
  });

/** @throws TenantryError `unknown_tenant`, `wrong_status`, `move_refused`, `idempotency_conflict`, `operation_running` */
export async function moveTenant(
  admin: Admin,
  slug: string,
  body: MovingBody,
  idempotencyKey: string | undefined,
): Promise<MoveView> {
  const { operationId } = await afterStalled(admin, slug, () =>
    withCatalog(admin, (catalog) => beginMove(catalog, { slug, ...destined(body) }, idempotencyKey)),
  );
  await ensureExecution(admin, operationId);
  return showMove(admin, slug);
}

/** @throws TenantryError `invalid_request` */
export function destined({ placement, ...body }: MovingBody) {
  if (placement !== undefined && isolations[body.to].place(placement) === 'shared')
    throw new TenantryError(
      'invalid_request',
      `A placement is for the strategy database, not for ${body.to}.`,
    );
  return { ...body, placement: placement ?? (body.cluster === undefined ? 'dedicated' : 'shared-cluster') };
}

/** Of a move that is under way and not paused, one execution runs. Safe to repeat: each has a name of its own. */
async function ensureExecution(admin: Admin, operationId: string): Promise<void> {
  const found = await withCatalog(admin, async (catalog) => ({
    operation: await operationOf(catalog, operationId, 'move'),
    move: (await readMove(catalog, operationId))!,
  }));
  if (found.operation.state !== 'running' || found.move.pausedAt !== undefined) return;
  const name = executionName(found.move);
  await admin.workflows.start(admin.settings.moveMachine, name, machineInput(found.operation));
}

/** The tenant's last move. @throws TenantryError `unknown_tenant`, `unknown_operation` */
export const showMove = (admin: Admin, slug: string): Promise<MoveView> =>
  withCatalog(admin, async (catalog) => {
    const row = await lastMove(catalog, slug);
    const [operation] = await operationViews(catalog, { operationId: row.operation_id, limit: 1 });
    const move = (await readMove(catalog, row.operation_id))!;
    const end = move.switchedAt && new Date(move.switchedAt.getTime() + move.windowSeconds * 1_000);
    return {
      tenant: slug,
      operation: operation!,
      from: row.from_strategy,
      to: row.to_strategy,
      phase: move.phase,
      wanted: (row.state === 'running' && move.wanted) || null,
      isSuspended: row.status === 'suspended',
      pausedAt: move.pausedAt?.toISOString() ?? null,
      switchedAt: move.switchedAt?.toISOString() ?? null,
      windowEndsAt: move.phase === 'switched' ? end!.toISOString() : null,
      pauseMs: row.pause_ms,
      comparedAt: move.comparedAt?.toISOString() ?? null,
      differs: move.differs ?? null,
      rows: row.result?.rows ?? null,
      notRemoved: row.not_removed,
    };
  });

/**
 * What the state machine does at its next step: `cancel` and `pause` before the switch, `reverse` and `complete` after it.
 * @throws TenantryError `unknown_tenant`, `unknown_operation`, `wrong_status`
 */
export async function askMove(admin: Admin, slug: string, wish: MoveWish): Promise<MoveView> {
  const operationId = await withCatalog(admin, async (catalog) => {
    const { operation_id, state } = await lastMove(catalog, slug);
    if (state !== 'running') throw new TenantryError('wrong_status', ended(slug));
    if (!(await wishMove(catalog, operation_id, wish)))
      throw new TenantryError('wrong_status', refusals[wish](slug, (await lastMove(catalog, slug)).phase));
    return operation_id as string;
  });
  // A paused one has none that could take it back.
  if (wish === 'cancel') await ensureExecution(admin, operationId);
  return showMove(admin, slug);
}

/**
 * Completes a move whose other home is lost; of one that was given up over it, the tenant's next move leaves that home be.
 * @throws TenantryError `unknown_tenant`, `unknown_operation`, `wrong_status`
 */
export async function completeWithoutComparison(admin: Admin, slug: string): Promise<MoveView> {
  await withCatalog(admin, async (catalog) => {
    const { operation_id, state } = await lastMove(catalog, slug);
    if (state !== 'running' && state !== 'failed') throw new TenantryError('wrong_status', ended(slug));
    if (!(await completeUncompared(catalog, operation_id)))
      throw new TenantryError('wrong_status', beforeSwitch(slug));
  });
  return showMove(admin, slug);
}

/** Goes on with a move that is paused, where it was. @throws TenantryError `unknown_tenant`, `unknown_operation`, `wrong_status` */
export async function goOnMoving(admin: Admin, slug: string): Promise<MoveView> {
  const operationId = await withCatalog(admin, async (catalog) => {
    const { operation_id, state, resumed_at } = await lastMove(catalog, slug);
    const isResumed = state === 'running' && (await resumeMove(catalog, operation_id));
    // Again, for one who has had no answer.
    if (!isResumed && (state !== 'running' || resumed_at === null))
      throw new TenantryError('wrong_status', `No move of ${slug} is paused.`);
    return operation_id as string;
  });
  await ensureExecution(admin, operationId);
  return showMove(admin, slug);
}

const ended = (slug: string) => `No move of ${slug} is under way.`;
const beforeSwitch = (slug: string) =>
  `${slug} still lives in its first home: wait for the switch, or cancel the move.`;
/** Where a move stands that is under way and can't do what is asked of it. */
const standing = (slug: string, phase: Move['phase']) => {
  switch (phase) {
    case 'moving':
    case 'cancelled':
      return `The move of ${slug} is being cancelled.`;
    case 'switched':
      return `${slug} lives in its new home already: reverse the move, or complete it.`;
    default:
      return `The move of ${slug} is ${phase}, and the home that it has left is being removed.`;
  }
};
const refusals: Record<MoveWish, (slug: string, phase: Move['phase']) => string> = {
  // Before the switch only a cancellation is in the way of a pause.
  pause: standing,
  cancel: standing,
  reverse: (slug, phase) => (phase === 'moving' ? beforeSwitch(slug) : standing(slug, phase)),
  complete: (slug, phase) => (phase === 'moving' ? beforeSwitch(slug) : standing(slug, phase)),
};

async function lastMove(catalog: ControlConnection, slug: string) {
  const { tenant_id } = await findTenant(catalog, slug);
  const { rows } = await catalog.query(
    `select m.*, t.status, o.state, o.result ->> 'notRemoved' as not_removed, o.input ->> 'strategy' as to_strategy, o.input ->> 'from' as from_strategy
       from catalog.moves m join catalog.operations o using (operation_id) join catalog.tenants t on t.tenant_id = m.tenant_id
      where m.tenant_id = $1 order by o.started_at desc limit 1`,
    [tenant_id],
  );
  if (rows[0] === undefined) throw new TenantryError('unknown_operation', `${slug} has never been moved.`);
  return rows[0];
}
