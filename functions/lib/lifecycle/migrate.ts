import { type Planned, recordTargets } from '../catalog/migration-plan.ts';
import {
  countTargets,
  haltRun,
  type MigrationRun,
  openRing,
  type RingCount,
  readRun,
  recordRun,
} from '../catalog/migration-runs.ts';
import { passOver } from '../catalog/migration-targets.ts';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { owningStrategies } from '../isolation/isolation.ts';
import type { MigrationFile } from '../migrations/migration-file.ts';
import { filesUpTo, newestState, type Release, schemaStates } from '../migrations/release.ts';
import type { TenantId } from '../tenant/tenant.ts';
import type { ControlPlane } from './control-plane.ts';
import { gate } from './migrate-gate.ts';
import { slotsFor, work } from './migrate-work.ts';
import { requireReleaseUnedited } from './migrated.ts';
import { beginRecorded, endOperation, type Operation } from './operations.ts';
import { failureOf, operationLock, type Step, type StepEvent } from './step.ts';

export interface MigrateRequest {
  /** Up to this one; the newest when it is not said. */
  readonly version?: string;
  /** Slugs of the tenants that go first; when none is named, one home of each strategy. */
  readonly canaries: readonly string[];
  /** Of each tier's homes, after the canaries. */
  readonly percent: number;
  /** Homes that may break before the run halts. */
  readonly tolerated: number;
}

export interface Migrator {
  readonly plane: ControlPlane;
  readonly release: Release;
  /** A real tool call through a tenant's data path. @throws when it does not hold */
  probe(tenant: TenantId): Promise<void>;
  /** How many workers share a ring at most. */
  readonly workers: number;
  readonly clock: () => number;
}

/**
 * Begins a run over all homes, or answers the one that this key has begun.
 * @throws TenantryError `migration_refused`, `idempotency_conflict`; `operation_running`: one run at a time
 */
export async function beginMigration(
  catalog: ControlConnection,
  release: Release,
  request: MigrateRequest,
  idempotencyKey?: string,
): Promise<Operation> {
  const { version, digest } = await plannedFor(catalog, release, request);
  const wanted = { kind: 'migrate', tenant: undefined, request, input: request, idempotencyKey } as const;
  // With it: so that it can be halted before its first step, and its steps know what release it is of.
  return beginRecorded(catalog, wanted, ({ operationId }) =>
    recordRun(catalog, { operationId, version, digest, tolerated: request.tolerated }),
  );
}

/**
 * What a run of this request looks at.
 * @throws TenantryError `migration_refused`: no such version, or a file was edited after a home had got it
 */
export async function plannedFor(
  catalog: ControlConnection,
  release: Release,
  { version, canaries, percent }: MigrateRequest,
): Promise<Planned & { readonly files: readonly MigrationFile[] }> {
  const states = schemaStates(release);
  const files = version === undefined ? release.home : filesUpTo(release, version);
  if (files === undefined)
    throw new TenantryError(
      'migration_refused',
      `There is no migration ${version}. The newest is ${newestState(release).version}.`,
    );
  await requireReleaseUnedited(catalog, release);
  return { owning: owningStrategies, states, ...states[files.length - 1]!, canaries, percent, files };
}

/** Within a run each slot's worker takes turns with itself only. */
export const turnOf = ({ step, input }: Pick<StepEvent, 'step' | 'input'>): string =>
  step === 'work' ? `/${input.slot}` : '';

/** The steps of `stepfunctions/migrate-tenants.asl.json`. Each may run twice, in parallel with itself, or die at any line. */
export const migrateSteps = {
  async plan(migrator, catalog, { operationId, input }) {
    const run = await runOf(catalog, operationId);
    requireRelease(migrator.release, run);
    const plan = await plannedFor(catalog, migrator.release, { ...input, version: run.version });
    await recordTargets(catalog, operationId, plan);
    // Whoever only begins a run need not load it.
    const { rehearseRun } = await import('./migrate-rehearsal.ts');
    await rehearseRun(migrator, catalog, operationId);
  },

  /** The first ring with something left to do, and the slots of the workers that it takes. */
  async nextRing({ workers }, catalog, { operationId }): Promise<{ ring: number; slots: number[] }> {
    await passOver(catalog, operationId);
    const next = await openRing(catalog, operationId);
    return next === undefined ? { ring: -1, slots: [] } : { ring: next.ring, slots: slotsFor(next, workers) };
  },

  async work(migrator, catalog, { operationId }, { slot, ring }): Promise<{ more: boolean }> {
    const run = await runOf(catalog, operationId);
    requireRelease(migrator.release, run);
    return { more: await work(migrator, catalog, run, { slot: Number(slot), ring: Number(ring) }) };
  },

  async gate(migrator, catalog, { operationId }, { ring }) {
    const run = await runOf(catalog, operationId);
    await gate(migrator, catalog, run, Number(ring));
  },

  async finish(_, catalog, { operationId }) {
    await endOperation(catalog, operationId, { state: 'done' }, await totals(catalog, operationId));
  },

  /** Where a worker of the run is still at a batch, it ends that first: afterwards a move may begin in the same homes. */
  async halt({ workers }, catalog, { operationId }, input) {
    await haltRun(catalog, operationId);
    for (let slot = 0; slot < workers; slot += 1) {
      const { sql, values } = operationLock(operationId, turnOf({ step: 'work', input: { slot } }));
      await catalog.query(`select pg_advisory_xact_lock(${sql})`, values);
    }
    await endOperation(
      catalog,
      operationId,
      { state: 'failed', ...failureOf(input) },
      await totals(catalog, operationId),
    );
  },
} as const satisfies Record<string, Step<Migrator, 'migrate'>>;

/** What the run has come to, over all rings. */
async function totals(catalog: ControlConnection, operationId: string): Promise<RingCount['counts']> {
  const sum = { pending: 0, leased: 0, done: 0, quarantined: 0, pinned: 0, gone: 0, moving: 0 };
  for (const { counts } of await countTargets(catalog, operationId))
    for (const state of Object.keys(sum) as (keyof typeof sum)[]) sum[state] += counts[state];
  return sum;
}

async function runOf(catalog: ControlConnection, operationId: string): Promise<MigrationRun> {
  const run = await readRun(catalog, operationId);
  if (run === undefined)
    throw new TenantryError('internal', 'Nothing is recorded of this run: begin another one.');
  return run;
}

/**
 * While a deployment is under way, one function has the old release and another one the new: what was begun for one of them
 * would find nothing to do in the other, or record homes as what they are not. A release that only adds files to the run's
 * can carry it out.
 * @throws RetryableError `unavailable`: in a while this function may have the run's release, or signing keys
 */
function requireRelease(release: Release, { version, digest }: MigrationRun): void {
  if (schemaStates(release).some((state) => state.digest === digest)) return;
  throw new RetryableError(
    'unavailable',
    `The run was begun for the release that ends in ${version}, and the function that migrates has another one (it ends in ${newestState(release).version}). Let the deployment end, then run it again.`,
    5,
  );
}
