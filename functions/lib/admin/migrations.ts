import { z } from 'zod';
import { pinTenant, unpinTenant } from '../catalog/migration-pins.ts';
import { ringNames } from '../catalog/migration-plan.ts';
import { countTargets, haltRun, type NamedTarget, namedTargets, readRun } from '../catalog/migration-runs.ts';
import { type ControlConnection, inTransaction } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { beginMigration, type MigrateRequest } from '../lifecycle/migrate.ts';
import { filesUpTo, newestState, versionOf } from '../migrations/release.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { lastOf, type OperationView, operationViews } from './operations.ts';
import { findTenant, runningOperation } from './tenants.ts';

export const newRun = z.strictObject({
  version: z.string().optional(),
  canaries: z.array(z.string()).max(1_000).default([]),
  percent: z.int().min(0).max(100).default(10),
  tolerated: z.int().min(0).default(0),
});
export type NewRunBody = z.output<typeof newRun>;

export const newPin = z.strictObject({
  version: z.string(),
  reason: z.string().min(1).max(500),
  days: z.int().min(1).max(365),
});
export type NewPinBody = z.output<typeof newPin>;

/** Of the fleet, these many are named; the rest is counted. */
export const mostNamed = 50;

export interface RingView {
  readonly ring: string;
  readonly pending: number;
  readonly working: number;
  readonly done: number;
  readonly quarantined: number;
  readonly pinned: number;
  /** Their tenants left while the run was on its way. */
  readonly gone: number;
  /** Passed over: a move holds them. */
  readonly moving: number;
}

export interface RunView {
  readonly operation: OperationView;
  readonly version: string;
  readonly tolerated: number;
  readonly rings: readonly RingView[];
  /** Quarantined and pinned ones, those that a move holds or that are ahead of the release, with the reason; the first 50. */
  readonly named: readonly (Omit<NamedTarget, 'ring'> & { readonly ring: string })[];
}

/**
 * Begins a run over all homes; the state machine carries it out.
 * @throws TenantryError `migration_refused`, `operation_running`, `idempotency_conflict`, `unknown_tenant`, `wrong_strategy`
 */
export async function runMigration(
  admin: Admin,
  request: NewRunBody,
  idempotencyKey: string | undefined,
): Promise<RunView> {
  const operation = await withCatalog(admin, async (catalog) => {
    await requireCanaries(catalog, request.canaries);
    return beginMigration(catalog, await admin.release(), requestOf(request), idempotencyKey);
  });
  // Safe to repeat: the execution has the operation's name.
  if (operation.state === 'running')
    await admin.workflows.start(admin.settings.migrateMachine, operation.operationId, {
      operation: operation.operationId,
    });
  return showMigration(admin, operation.operationId);
}

/** As the last run, over what is left: homes that are where they shall be are no targets. @throws as `runMigration`, `wrong_status` */
export async function resumeMigration(admin: Admin, idempotencyKey: string | undefined): Promise<RunView> {
  const last = await withCatalog(admin, async (catalog) => {
    const { rows } = await catalog.query(
      `select state, input, idempotency_key from catalog.operations where kind = 'migrate' order by started_at desc limit 1`,
    );
    return rows[0] as { state: string; input: NewRunBody; idempotency_key: string | null } | undefined;
  });
  // The last run may be the one that this key has begun: then it is the answer, whatever has become of it.
  const isOurs = last !== undefined && last.idempotency_key === (idempotencyKey ?? '');
  if (last?.state === 'running' && !isOurs)
    throw new TenantryError(
      'operation_running',
      'The last run is still under way: one that was halted ends the batches it is at. `npm run tenants -- migrate status` says when it has ended.',
    );
  if (last === undefined || (last.state !== 'failed' && !isOurs))
    throw new TenantryError(
      'wrong_status',
      'The last run has not failed: there is nothing to resume. What it left out: `npm run tenants -- migrate run`.',
    );
  return runMigration(admin, last.input, idempotencyKey);
}

/** Its workers end the batch they are at. @throws TenantryError `wrong_status` when none is under way */
export async function haltMigration(admin: Admin): Promise<RunView> {
  const id = await latest(admin);
  if (!(await withCatalog(admin, (catalog) => haltRun(catalog, id))))
    throw new TenantryError('wrong_status', 'No run is under way.');
  return showMigration(admin, id);
}

/** The last run, or the one that is named. @throws TenantryError `unknown_operation` */
export async function showMigration(admin: Admin, id?: string): Promise<RunView> {
  const operationId = id ?? (await latest(admin));
  return withCatalog(admin, async (catalog) => {
    const [operation] = await operationViews(catalog, { operationId, limit: 1 });
    if (operation?.kind !== 'migrate') throw new TenantryError('unknown_operation', 'There is no such run.');
    const run = await readRun(catalog, operationId);
    return {
      operation,
      version: run?.version ?? '',
      tolerated: run?.tolerated ?? 0,
      rings: (await countTargets(catalog, operationId)).map(({ ring, counts: { leased, ...counts } }) => ({
        ring: ringNames[ring]!,
        working: leased,
        ...counts,
      })),
      named: (await namedTargets(catalog, operationId, mostNamed)).map((target) => ({
        ...target,
        ring: ringNames[target.ring]!,
      })),
    };
  });
}

/**
 * Holds a tenant at a version, or lets it go as far as that one, until the pin expires.
 * @throws TenantryError `unknown_tenant`, `migration_refused`; `wrong_strategy` for one whose tables are shared
 */
export const pin = (admin: Admin, slug: string, wanted: NewPinBody, now = Date.now()): Promise<PinView> =>
  withCatalog(admin, (catalog) =>
    inTransaction(catalog, async () => {
      // Whatever is just being begun for it is there when this has been waited for, and what comes later sees the pin.
      await catalog.query('select from catalog.tenants where slug = $1 for update', [slug]);
      return pinHeld(admin, catalog, slug, wanted, now);
    }),
  );

async function pinHeld(
  admin: Admin,
  catalog: ControlConnection,
  slug: string,
  { version, reason, days }: NewPinBody,
  now: number,
): Promise<PinView> {
  const { tenant_id, strategy, status } = await findTenant(catalog, slug);
  if (status === 'offboarded')
    throw new TenantryError('wrong_status', `${slug} is offboarded: it has no tables to keep at a version.`);
  if (!isolations[strategy].ownsTables)
    throw new TenantryError(
      'wrong_strategy',
      `${slug} shares its tables with others, which are all at one version. Move it to a schema or a database of its own first.`,
    );
  const running = await runningOperation(catalog, slug);
  const sides = running?.kind === 'move' ? [running.input.from, running.input.strategy] : [];
  if (sides.some((side) => !isolations[side].ownsTables))
    throw new TenantryError(
      'operation_running',
      `${slug} is between shared tables, which are all at one version, and its own. Pin it when its move has ended: npm run tenants -- move status ${slug}`,
    );
  const release = await admin.release();
  const files = filesUpTo(release, version);
  if (files === undefined)
    throw new TenantryError(
      'migration_refused',
      `There is no migration ${version}. The newest is ${newestState(release).version}.`,
    );
  const name = versionOf(files)!;
  const { rows } = await catalog.query<{ version: string }>(
    'select schema_version as version from catalog.homes join catalog.tenants using (home_id) where slug = $1 and schema_version > $2',
    [slug, name],
  );
  if (rows[0] !== undefined)
    throw new TenantryError(
      'migration_refused',
      `${slug} is at ${rows[0].version} already, and no home goes back. Pin it there to keep it where it is.`,
    );
  const until = new Date(now + days * 86_400_000);
  await pinTenant(catalog, tenant_id, { version: name, reason, until });
  return { tenant: slug, version: name, reason, until: until.toISOString() };
}

export interface PinView {
  readonly tenant: string;
  readonly version: string;
  readonly reason: string;
  readonly until: string;
}

/** The next run takes it along. @throws TenantryError `unknown_tenant`; `wrong_status` when it has none */
export const unpin = (admin: Admin, slug: string): Promise<{ tenant: string }> =>
  withCatalog(admin, async (catalog) => {
    const { tenant_id } = await findTenant(catalog, slug);
    if (!(await unpinTenant(catalog, tenant_id)))
      throw new TenantryError('wrong_status', `${slug} has no pin.`);
    return { tenant: slug };
  });

/** What a migration run changes for a tenant: a home of its own, or the tables that it shares with its cluster's others. */
export const migratedAs = (strategy: Strategy, homeId: string, clusterId: string): string =>
  isolations[strategy].ownsTables ? homeId : clusterId;

/** In one form, whoever asks: what an idempotency key is compared by. */
export const requestOf = ({ version, canaries, percent, tolerated }: NewRunBody): MigrateRequest => ({
  ...(version !== undefined && { version }),
  canaries: [...canaries].sort(),
  percent,
  tolerated,
});

/**
 * A canary that does not exist, or has no home of its own, would let the second ring go first.
 * @throws TenantryError `unknown_tenant`, `wrong_strategy`
 */
export async function requireCanaries(
  catalog: ControlConnection,
  canaries: readonly string[],
): Promise<void> {
  for (const slug of canaries) {
    const { strategy } = await findTenant(catalog, slug);
    if (!isolations[strategy].ownsTables)
      throw new TenantryError(
        'wrong_strategy',
        `${slug} can't be a canary: it shares its tables with others, and those are migrated once, in the last ring. Name tenants with a schema or a database of their own.`,
      );
  }
}

async function latest(admin: Admin): Promise<string> {
  const id = await withCatalog(admin, (catalog) => lastOf(catalog, 'migrate'));
  if (id === undefined) throw new TenantryError('unknown_operation', 'There has been no run yet.');
  return id;
}
