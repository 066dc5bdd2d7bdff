import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { type MigrationRun, type openRing, recordFiles } from '../catalog/migration-runs.ts';
import {
  type LeasedTarget,
  leaseTargets,
  recordOutcomes,
  releaseTargets,
  type TargetOutcome,
} from '../catalog/migration-targets.ts';
import {
  answersOf,
  type ControlConnection,
  type OpenConnection,
  openConnection,
} from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { RetryableError } from '../errors.ts';
import { sharedHome } from '../isolation/isolation.ts';
import { ensureRuntime } from '../migrations/install.ts';
import type { MigrationFile } from '../migrations/migration-file.ts';
import { type HomeOutcome, migrateHomes } from '../migrations/migrator.ts';
import { filesUpTo, schemaStates } from '../migrations/release.ts';
import type { MigrationTarget } from '../migrations/script.ts';
import { adminEndpoint } from './control-plane.ts';
import type { Migrator } from './migrate.ts';

/** Two cores of a server are busy with four; more would only wait for each other. */
export const workers = 4;

/** How long a worker begins transactions before it hands its slot to the next invocation, ms: of a function's 15 minutes the rest is for the one it is at. */
const turn = 5 * 60_000;
/** Homes of one transaction: more gain nothing, and hold their locks longer. */
const largestBatch = 25;
/** How long a batch may be expected to take, ms: the locks of its first home are held to its end. */
const batchTime = 30_000;

/** The worker slots for a ring: each has a batch, or a server, of its own. Connections are kept, and opening one takes 15 ms. */
export function slotsFor(ring: NonNullable<Awaited<ReturnType<typeof openRing>>>, workers: number): number[] {
  const needed = Math.min(workers, Math.max(ring.places, Math.ceil(ring.open / largestBatch)));
  return [...new Set([...Array(needed).keys(), ...ring.held])];
}

/** Of the server's lock table, over all workers of a run: the rest is its tenants'. */
const lockShare = 0.25;
/** For a dedicated server that does not answer, ms: then its home is left out, and the run goes on. */
const waits = [2_000, 5_000];

interface Place extends OpenConnection {
  readonly key: string;
  /** Slots of the server's lock table. */
  readonly lockTable: number;
}

/**
 * One worker slot of a ring: takes batch after batch from the catalog until there is none, or its turn is over.
 * @returns whether there may be more
 */
export async function work(
  migrator: Migrator,
  catalog: ControlConnection,
  run: MigrationRun,
  { slot, ring }: { slot: number; ring: number },
): Promise<boolean> {
  const { operationId } = run;
  const until = migrator.clock() + turn;
  const worker: Worker = { migrator, catalog, operationId, until, lease: randomUUID(), recorded: new Set() };
  const { lease } = worker;
  let place: Place | undefined;
  // One at first: it says how many locks a home takes, and how long.
  let size = 1;
  let largest = largestBatch;
  let more = true;
  try {
    while (migrator.clock() < until) {
      const batch = await leaseTargets(catalog, { operationId, ring, slot, lease, size });
      more = batch.length > 0;
      if (!more) break;
      const key = placeOf(batch[0]!);
      if (place?.key !== key) {
        await place?.release();
        place = undefined;
        const opened = await openPlace(migrator, batch[0]!);
        if (opened instanceof Error) {
          await recordOutcomes(
            catalog,
            operationId,
            lease,
            batch.map(({ targetId }) => failed(targetId, opened)),
          );
          continue;
        }
        place = opened;
      }
      const fitting = await migrateBatch(worker, place, batch);
      if (fitting === 'lost') {
        await place.close();
        place = undefined;
        await releaseTargets(catalog, operationId, lease);
        // What took too long together goes on one by one.
        largest = 1;
      }
      size = Math.min(largest, fitting === 'lost' ? 1 : (fitting ?? size));
    }
    await place?.release();
    return more;
  } catch (error) {
    // Given back at once, where the catalog still answers: the next worker need not be of this slot.
    await releaseTargets(catalog, operationId, lease).catch(() => {});
    await place?.close();
    throw error;
  }
}

interface Worker {
  readonly migrator: Migrator;
  readonly catalog: ControlConnection;
  readonly operationId: string;
  readonly lease: string;
  readonly until: number;
  /** Names of the files that the catalog has from this worker. */
  readonly recorded: Set<string>;
}

/** @returns how many such homes fit into a batch, where that could be seen; `lost`: the place's connection has ended, and what is left of the batch is still leased */
async function migrateBatch(
  { migrator, catalog, operationId, lease, until, recorded }: Worker,
  place: Place,
  batch: readonly LeasedTarget[],
): Promise<number | 'lost' | undefined> {
  const { plane, release, clock } = migrator;
  const states = new Set(schemaStates(release).map(({ digest }) => digest));
  let fitting: number | undefined;
  // Homes of one batch differ in where they shall be only where one is pinned.
  for (const [version, leased] of Map.groupBy(batch, ({ version }) => version)) {
    const files = filesUpTo(release, version)!;
    const homes = leased.map((target) => targetOf(target, plane.keys, states));
    const begun = clock();
    const { outcomes, locks, isLost } = await migrateHomes(place.connection, homes, files, {
      completesAll: true,
      clock,
      until,
    });
    const results = leased.map(({ targetId }, index) => outcomeOf(targetId, outcomes[index]!));
    await answersOf([
      recordOutcomes(catalog, operationId, lease, results),
      recordFiles(catalog, newFiles(files, results, recorded)),
    ]);
    if (isLost) return 'lost';
    if (locks !== undefined)
      fitting = sizeFor(place, migrator, { locks, ms: (clock() - begun) / leased.length });
  }
  return fitting;
}

const outcomeOf = (targetId: string, { applied, error, isLeft }: HomeOutcome): TargetOutcome => ({
  targetId,
  state: error ? 'quarantined' : isLeft ? 'pending' : 'done',
  applied,
  reason: error?.message.slice(0, 2_000),
});

/** Each file once: that some home has it is what the catalog keeps. */
function newFiles(files: readonly MigrationFile[], results: readonly TargetOutcome[], recorded: Set<string>) {
  const names = new Set(results.flatMap(({ applied }) => applied));
  const fresh = files.filter(({ name }) => names.has(name) && !recorded.has(name));
  for (const { name } of fresh) recorded.add(name);
  return fresh;
}

/** By what one home took: its locks, and its time. */
function sizeFor({ lockTable }: Place, { workers }: Migrator, { locks, ms }: { locks: number; ms: number }) {
  const byLocks = (lockShare * lockTable) / workers / locks;
  return Math.max(1, Math.floor(Math.min(largestBatch, byLocks, batchTime / Math.max(ms, 1))));
}

export function targetOf(
  { targetId, kind, row }: LeasedTarget,
  keys: MigrationTarget['keys'],
  states: ReadonlySet<string>,
): MigrationTarget {
  const home =
    kind === 'shared'
      ? sharedHome
      : {
          homeId: targetId,
          tenant: row.tenant_id,
          strategy: row.strategy,
          schema: row.schema_name,
          login: row.login,
          epoch: Number(row.epoch),
        };
  // A state that this release knows was reached under its runtime.
  return { home, databaseId: row.database_id, keys, isSound: states.has(row.schema_digest) };
}

const placeOf = ({ row }: LeasedTarget) => `${row.cluster_id}/${row.database_name}`;

const failed = (targetId: string, error: Error): TargetOutcome => ({
  targetId,
  state: 'quarantined',
  applied: [],
  reason: error.message,
});

/** @returns an Error when it is a tenant's own server that does not answer: that is no reason for others to wait */
export async function openPlace({ plane, release }: Migrator, target: LeasedTarget): Promise<Place | Error> {
  const { cluster_id: clusterId, admin_host: host, admin_port: port, database_name: database } = target.row;
  for (let attempt = 0; ; attempt += 1) {
    try {
      const opened = await openConnection(adminEndpoint(plane, { clusterId, host, port, database }));
      try {
        const [{ rows }] = await answersOf([
          opened.connection.query<{ locks: number }>(
            `select current_setting('max_locks_per_transaction')::integer
                  * (current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer) as locks`,
          ),
          ensureRuntime(opened.connection, plane.keys, release.runtime, release.extensions),
        ]);
        return { ...opened, key: placeOf(target), lockTable: rows[0]!.locks };
      } catch (error) {
        await opened.close();
        throw error;
      }
    } catch (error) {
      if (!(error instanceof ConnectFailure)) throw error;
      if (attempt < waits.length) await setTimeout(waits[attempt]);
      else if (target.row.cluster_kind === 'dedicated')
        return new Error(
          'Its own database server does not answer. Start it, then `npm run tenants -- migrate resume`.',
        );
      else
        throw new RetryableError('unavailable', 'A shared database does not answer. Run it again.', 5, {
          cause: error,
        });
    }
  }
}
