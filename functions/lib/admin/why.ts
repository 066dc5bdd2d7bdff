import { whyLeftOut } from '../catalog/migration-runs.ts';
import { TenantryError } from '../errors.ts';
import { readOperation, silentMinutes } from '../lifecycle/operations.ts';
import { isCanarySlug, type Placement, type Strategy, type TenantStatus } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { migratedAs } from './migrations.ts';
import { moment } from './moment.ts';
import { type MoveView, showMove } from './move.ts';
import { type OperationView, type OperationWithSteps, showOperation } from './operations.ts';
import { showTenant, type TenantView } from './tenants.ts';

/** Why a tenant is as it is, and what to do. */
export interface Why {
  readonly slug: string;
  readonly status: TenantStatus;
  readonly why: string;
  /** Until then `resume` undoes an offboarding. */
  readonly graceEndsAt: string | null;
  /** Commands, the best first. */
  readonly run: readonly string[];
  readonly operation: OperationWithSteps | null;
}

const tenants = 'npm run tenants --';

/** @throws TenantryError `unknown_tenant` */
export async function whyTenant(admin: Admin, slug: string, now = Date.now()): Promise<Why> {
  const tenant = await showTenant(admin, slug);
  const { status } = tenant;
  const operation = tenant.operation && (await showOperation(admin, tenant.operation.id));
  const move = await lastMove(admin, slug);
  const again = await commandOf(admin, tenant, status === 'active' ? move?.operation : tenant.operation);
  const { why, run } = explain(tenant, operation, move, again, now);
  const leftOut = status === 'active' || status === 'suspended' ? await leftOutOf(admin, tenant) : undefined;
  return {
    slug,
    status,
    why:
      leftOut === undefined
        ? why
        : `${why} The last migration run has left its tables as they were: ${leftOut}`,
    graceEndsAt: tenant.graceEndsAt,
    run: leftOut === undefined ? run : [...run, `${tenants} migrate status`],
    operation,
  };
}

async function leftOutOf(admin: Admin, { strategy, home }: TenantView): Promise<string | undefined> {
  if (home === null) return undefined;
  return withCatalog(admin, (catalog) => whyLeftOut(catalog, migratedAs(strategy, home.id, home.cluster.id)));
}

function explain(
  { slug, status, home, removalBegunAt, graceEndsAt }: TenantView,
  operation: OperationWithSteps | null,
  last: MoveView | undefined,
  again: string,
  now: number,
): { why: string; run: string[] } {
  const running = operation?.state === 'running' ? operation : undefined;
  const move = last?.operation.state === 'running' ? last : undefined;
  const watch = `${tenants} operations --watch`;
  switch (status) {
    case 'active':
      if (move !== undefined)
        return {
          why: `Its agents are served all the time. ${standing(move)}`,
          run: toDo(move),
        };
      if (home?.state === 'open' && last?.operation.state === 'failed')
        return {
          why: `Its agents are served. Its last move failed at ${last.operation.failedStep}: ${last.operation.reason}`,
          // After its switch the tenant is where it shall be.
          run: [
            `${tenants} move status ${slug}`,
            ...(last.phase === 'cancelled' ? [again] : []),
            `${tenants} operations cancel ${last.operation.id}`,
          ],
        };
      if (home?.state === 'open') return { why: 'Its agents are served.', run: [] };
      return {
        why: `Its home is ${home?.state ?? 'missing'}: calls are refused until that is open.`,
        run: [`${tenants} show ${slug}`, watch],
      };
    case 'suspended':
      return {
        why: `An operator has suspended it: every call is refused.${move ? ` ${standing(move)}` : ''}${move?.phase === 'moving' ? ' It fails should it come to the switch before the tenant is resumed.' : ''}`,
        run: [`${tenants} resume ${slug}`, ...(move ? toDo(move) : [])],
      };
    case 'failed':
      return {
        why: `Its last operation failed${operation?.failedStep ? ` at ${operation.failedStep}` : ''}: ${operation?.reason ?? 'nothing is recorded.'}${isCanarySlug(slug) ? ' The watch makes it again, a quarter of an hour after it began.' : ''}`,
        run: [again],
      };
    case 'provisioning': {
      if (running === undefined) return { why: 'It was recorded, and nothing works on it.', run: [again] };
      const minutes = Math.floor((now - Date.parse(running.activeAt)) / 60_000);
      if (minutes >= silentMinutes)
        return {
          why: `It is being provisioned, but nothing has happened for ${minutes} minutes.`,
          run: [again, watch],
        };
      const last = running.steps.at(-1);
      const trouble = last?.outcome === 'failed' ? ` Last answer: ${last.reason}` : '';
      return {
        why: `It is being provisioned: ${last ? `step ${last.step}, attempt ${last.attempt}` : 'no step has begun yet'}.${trouble}`,
        run: [watch],
      };
    }
    case 'offboarding': {
      const undo = removalBegunAt === null && home !== null ? [`${tenants} resume ${slug}`] : [];
      if (running !== undefined)
        return {
          why:
            graceEndsAt !== null
              ? `It is being offboarded: every call is refused. Nothing is removed yet: until ${moment(graceEndsAt)} \`resume\` undoes it, and its agents are served again. Then its removal begins.`
              : `It is being offboarded, and its removal has begun: ${running.step ?? 'no step has begun yet'}.`,
          run: [...undo, watch],
        };
      return {
        why: `It is closed, but its offboarding ${operation?.failedStep ? `failed at ${operation.failedStep}: ${operation.reason}` : 'has stopped.'}${undo.length > 0 ? ' Nothing is removed: `resume` undoes it until it is offboarded again.' : ''}`,
        run: [`${tenants} offboard ${slug}`, ...undo],
      };
    }
    case 'offboarded':
      if (operation?.kind === 'offboard' && operation.state === 'failed')
        return {
          why: `It is gone, but its offboarding failed at ${operation.failedStep}: ${operation.reason}`,
          run: [`${tenants} offboard ${slug}`],
        };
      return { why: 'It was offboarded and is gone for good. Its slug stays taken.', run: [] };
  }
}

function standing({ phase, pausedAt, windowEndsAt, operation: { step } }: MoveView): string {
  if (pausedAt !== null) return 'Its move is paused, and its changes are being noted.';
  if (phase === 'switched') return `It was moved, and can be moved back until ${moment(windowEndsAt!)}.`;
  if (phase !== 'moving') return `Its move is ${phase}, and the home that it has left is being removed.`;
  return `Its move is under way: ${step ?? 'no step has begun yet'}.`;
}

const toDo = ({ tenant, pausedAt }: MoveView): string[] =>
  (pausedAt === null ? ['status'] : ['resume', 'cancel']).map((verb) => `${tenants} move ${verb} ${tenant}`);

/** The one that failed stays worth knowing when something else has gone well since: only another move makes it good. */
const lastMove = (admin: Admin, slug: string): Promise<MoveView | undefined> =>
  showMove(admin, slug).catch((error: unknown) => {
    if (error instanceof TenantryError && error.code === 'unknown_operation') return undefined;
    throw error;
  });

/** What begins an operation anew, as it was asked for. */
async function commandOf(
  admin: Admin,
  { slug, tier, strategy, home, issuer, externalId }: TenantView,
  view: OperationView | null | undefined,
): Promise<string> {
  const operation = view && (await withCatalog(admin, (catalog) => readOperation(catalog, view.id)));
  const where = (to: Strategy, placement: Placement) =>
    to === 'database' ? ` --placement ${placement}` : '';
  if (operation?.kind === 'move') {
    const { strategy: to, placement, clusterId } = operation.input;
    const elsewhere =
      clusterId !== undefined && clusterId !== home?.cluster.id ? ` --cluster ${clusterId}` : '';
    return `${tenants} move ${slug} --to ${to}${where(to, placement)}${elsewhere}`;
  }
  // Nobody else may make one.
  if (isCanarySlug(slug)) return `${tenants} health`;
  const placed = operation?.kind === 'provision' ? where(strategy, operation.input.placement) : '';
  // Left out, it would become a tenant that any issuer may name.
  const whose = Object.entries({ issuer, 'external-id': externalId })
    .flatMap(([option, value]) => (value === null ? [] : ` --${option} ${word(value)}`))
    .join('');
  return `${tenants} create ${slug} --tier ${tier} --strategy ${strategy}${placed}${whose} --wait`;
}

/** As a shell reads it. */
const word = (text: string) => (/^[\w.:/@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
