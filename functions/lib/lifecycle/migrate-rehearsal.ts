import { type LeasedTarget, samplePlanned, sampleTargets } from '../catalog/migration-targets.ts';
import { answersOf, type ControlConnection, withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { hasRuntime } from '../migrations/install.ts';
import { rehearse } from '../migrations/reference.ts';
import { filesUpTo, type Release } from '../migrations/release.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { adminEndpoint, type ControlPlane } from './control-plane.ts';
import type { Migrator, plannedFor } from './migrate.ts';
import { openPlace, targetOf } from './migrate-work.ts';

/**
 * Before the first home is changed: tries what a run brings in an empty home of each strategy. The shared tables come last in a
 * run, and their rules are more: what only they refuse would be found when every other home has it.
 * @throws TenantryError `migration_refused`: file, object and remedy; RetryableError `unavailable`
 */
export async function rehearseRun(
  migrator: Migrator,
  catalog: ControlConnection,
  operationId: string,
): Promise<void> {
  const samples = await sampleTargets(catalog, operationId);
  // No worker has a connection yet: these are fewer.
  await answersOf(samples.map((sample) => rehearseOne(migrator, sample)));
}

async function rehearseOne(migrator: Migrator, sample: LeasedTarget): Promise<void> {
  const { release, plane } = migrator;
  const files = filesOf(release, sample);
  if (files.fresh.length === 0) return;
  const place = await openPlace(migrator, sample);
  // A tenant's own server that does not answer: the run goes on without it, and says so.
  if (place instanceof Error) return;
  const target = targetOf(sample, plane.keys, new Set());
  try {
    await rehearse(place.connection, target, files);
  } catch (error) {
    await place.close();
    if (!isRefused(error)) throw error;
    throw new TenantryError(
      'migration_refused',
      `${error.message}\nIt was tried in an empty home of the strategy ${target.home.strategy}; no home was changed.`,
      { cause: error },
    );
  }
  await place.release();
}

export interface Rehearsal {
  readonly strategy: Strategy;
  readonly outcome: 'taken' | 'refused' | 'untried';
  /** Of a refusal: file, object and remedy. */
  readonly reason: string | null;
}

/** s, of all strategies at once. An answer of the admin API has 29. */
const planTimeout = 15;

/** The same for a plan, which waits for nobody and installs nothing: what can't be tried now, the run tries at its start. */
export async function rehearsePlan(
  { plane, release }: { readonly plane: ControlPlane; readonly release: Release },
  catalog: ControlConnection,
  plan: Awaited<ReturnType<typeof plannedFor>>,
): Promise<Rehearsal[]> {
  const samples = await samplePlanned(catalog, plan);
  return answersOf(
    samples
      .filter((sample) => filesOf(release, sample).fresh.length > 0)
      .map((sample) => rehearsePlanned(plane, release, sample)),
  );
}

async function rehearsePlanned(
  plane: ControlPlane,
  release: Release,
  sample: LeasedTarget,
): Promise<Rehearsal> {
  const target = targetOf(sample, plane.keys, new Set());
  const { cluster_id: clusterId, admin_host: host, admin_port: port, database_name: database } = sample.row;
  const outcome = await withConnection(
    adminEndpoint(plane, { clusterId, host, port, database }),
    async (connection) => {
      if (!(await hasRuntime(connection, plane.keys, release.runtime, release.extensions)))
        return untried('its database gets this release’s runtime with the run');
      return (await rehearse(connection, target, filesOf(release, sample), planTimeout))
        ? ({ outcome: 'taken', reason: null } as const)
        : untried('the files that homes have make none any more, see `migrate drift`');
    },
  ).catch((error: unknown) => {
    if (isRefused(error))
      return isLate(error.cause)
        ? untried(`it takes longer than ${planTimeout} s`)
        : ({ outcome: 'refused', reason: error.message } as const);
    if (error instanceof ConnectFailure || error instanceof RetryableError)
      return untried('its database does not answer');
    throw error;
  });
  return { strategy: target.home.strategy, ...outcome };
}

const untried = (reason: string) => ({ outcome: 'untried', reason }) as const;

function filesOf(release: Release, { version, row }: LeasedTarget) {
  const files = filesUpTo(release, version)!;
  const at = filesUpTo(release, row.schema_version ?? '')?.length ?? 0;
  return { had: files.slice(0, at), fresh: files.slice(at) };
}

const isRefused = (error: unknown): error is TenantryError =>
  error instanceof TenantryError && error.code === 'migration_refused';

/** 25P04 the transaction took too long. */
const isLate = (cause: unknown): boolean => (cause as { code?: string } | undefined)?.code === '25P04';
