import { setTimeout } from 'node:timers/promises';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { everyTenant, type MasterKeys } from '../isolation/context.ts';
import { type Home, isolations } from '../isolation/isolation.ts';
import { type Application, applyTogether, type MigrationTarget } from './apply.ts';
import { applyConcurrently } from './concurrent.ts';
import type { ConcurrentStatement } from './concurrent-statement.ts';
import { runtimeMigrations } from './install.ts';
import { inOrder, type MigrationFile, readMigrations } from './migration-file.ts';
import { refused } from './refused.ts';
import type { Release } from './release.ts';

export type { MigrationTarget } from './apply.ts';

const home = new URL('../../../migrations/home/', import.meta.url);
const tenant = new URL('../../../migrations/tenant/', import.meta.url);

/** What a home consists of: the product's own table, then the adopting team's. @throws as `readMigrations` */
export async function homeMigrations(): Promise<MigrationFile[]> {
  return inOrder([...(await readMigrations(home)), ...(await readMigrations(tenant))]);
}

/** What this deployment brings to every database and home. */
export const readRelease = async ({
  extensions,
  keys: { keys },
}: {
  readonly extensions: readonly string[];
  readonly keys: MasterKeys;
}): Promise<Release> => ({
  runtime: await runtimeMigrations(),
  home: await homeMigrations(),
  extensions: [...extensions].sort(),
  keys: [...keys.keys()].sort(),
});

/** All tenants on shared tables have one home to migrate. */
export const sharedHome: Home = {
  homeId: everyTenant,
  tenant: everyTenant,
  strategy: 'rls',
  ...isolations.rls.name(everyTenant),
  epoch: 1,
};

/** ms. Alone, a home may wait longer for a lock than among 24 others whose locks are held meanwhile. */
const [patient, hasty] = [3_000, 100];
const tries = 3;
/**
 * ms for a statement. A worker begins no batch after five of its fifteen minutes: what takes longer would die with its
 * function, again and again, and nobody would read why.
 */
const longest = 8 * 60_000;

/** What became of one home. `error`: the migration that it could not take; all before that one have been applied. */
export interface HomeOutcome {
  readonly target: MigrationTarget;
  readonly applied: readonly string[];
  readonly error: Error | undefined;
}

/**
 * Brings homes of one database to the last of the files: all of them in one transaction, and when that fails each by
 * itself, so that one broken home is known by name and keeps no other from its migration.
 * @returns `locks`: how many the transaction of all held at its end, when it came to that
 * @throws RetryableError `unavailable` when the server is gone: run it again
 */
export async function migrateHomes(
  connection: ControlConnection,
  targets: readonly MigrationTarget[],
  files: readonly MigrationFile[],
  {
    completesAll = false,
    statementTimeout = longest,
    now = Date.now,
  }: Partial<Omit<Application, 'lockTimeout'>> = {},
): Promise<{ outcomes: HomeOutcome[]; locks: number | undefined }> {
  let locks: number | undefined;
  const outcomes = new Map<string, { applied: string[]; error: Error | undefined }>(
    targets.map(({ home }) => [home.homeId, { applied: [], error: undefined }]),
  );
  const parts = sequence(files);
  for (const [index, part] of parts.entries()) {
    const going = targets.filter(({ home }) => outcomes.get(home.homeId)!.error === undefined);
    const application = {
      now,
      statementTimeout,
      completesAll: completesAll && index === parts.length - 1,
    };
    const results =
      'concurrent' in part
        ? await eachConcurrently(connection, going, part.concurrent)
        : await together(connection, going, part.files, application, (count) => {
            locks = Math.max(locks ?? 0, count);
          });
    for (const { target, applied, error } of results) {
      const outcome = outcomes.get(target.home.homeId)!;
      outcome.applied.push(...applied);
      outcome.error = error;
    }
  }
  return { outcomes: targets.map((target) => ({ target, ...outcomes.get(target.home.homeId)! })), locks };
}

/**
 * One home. Two migrators of one home take turns.
 * @returns the names of the files applied
 * @throws TenantryError `migration_refused`: file, object and remedy; nothing of that file is left
 */
export async function migrateHome(
  connection: ControlConnection,
  target: MigrationTarget,
  files: readonly MigrationFile[],
  now = Date.now,
): Promise<readonly string[]> {
  const { outcomes } = await migrateHomes(connection, [target], files, { now });
  const { applied, error } = outcomes[0]!;
  if (error) throw error;
  return applied;
}

type ConcurrentFile = MigrationFile & { readonly concurrent: ConcurrentStatement };
type Part = { readonly files: readonly MigrationFile[] } | { readonly concurrent: ConcurrentFile };

/** What may share a transaction, and what must stand alone; ends in a part with a transaction, for completing. */
function sequence(files: readonly MigrationFile[]): Part[] {
  const parts: Part[] = [];
  let run: MigrationFile[] = [];
  for (const file of files) {
    if (file.concurrent === undefined) run.push(file);
    else {
      parts.push({ files: run }, { concurrent: file as ConcurrentFile });
      run = [];
    }
  }
  return [...parts, { files: run }];
}

async function together(
  connection: ControlConnection,
  targets: readonly MigrationTarget[],
  files: readonly MigrationFile[],
  application: Omit<Application, 'lockTimeout'>,
  onLocks: (count: number) => void,
): Promise<HomeOutcome[]> {
  if (targets.length === 0) return [];
  try {
    const lockTimeout = targets.length === 1 ? patient : hasty;
    const { applied, locks } = await applyTogether(connection, targets, files, {
      ...application,
      lockTimeout,
    });
    if (locks !== undefined) onLocks(locks);
    return targets.map((target) => ({ target, applied: applied.get(target.home.homeId)!, error: undefined }));
  } catch (error) {
    requireAnswer(error);
    const outcomes: HomeOutcome[] = [];
    for (const target of targets) outcomes.push(await alone(connection, target, files, application));
    return outcomes;
  }
}

/** File by file, each in a transaction of its own: the error names the file. */
async function alone(
  connection: ControlConnection,
  target: MigrationTarget,
  files: readonly MigrationFile[],
  application: Omit<Application, 'lockTimeout'>,
): Promise<HomeOutcome> {
  const applied: string[] = [];
  // Completing comes with the last file, or by itself.
  const rounds = files.length === 0 ? [[]] : files.map((file) => [file]);
  for (const [index, round] of rounds.entries()) {
    const completesAll = application.completesAll && index === rounds.length - 1;
    try {
      const done = await withRetries(() =>
        applyTogether(connection, [target], round, { ...application, completesAll, lockTimeout: patient }),
      );
      applied.push(...done.applied.get(target.home.homeId)!);
    } catch (error) {
      requireAnswer(error);
      return { target, applied, error: refusalOf(round[0], error) };
    }
  }
  return { target, applied, error: undefined };
}

async function eachConcurrently(
  connection: ControlConnection,
  targets: readonly MigrationTarget[],
  file: ConcurrentFile,
): Promise<HomeOutcome[]> {
  const outcomes: HomeOutcome[] = [];
  for (const target of targets) {
    try {
      const isNew = await applyConcurrently(connection, target, file);
      outcomes.push({ target, applied: isNew ? [file.name] : [], error: undefined });
    } catch (error) {
      requireAnswer(error);
      outcomes.push({ target, applied: [], error: refusalOf(file, error) });
    }
  }
  return outcomes;
}

/** 55P03 lock_timeout, 40P01 deadlock, 53200 lock table full, XX000 tuple concurrently updated: another time it may work. */
const passing = ['55P03', '40P01', '40001', '53200', 'XX000'];

async function withRetries<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (attempt === tries || !passing.includes((error as { code?: string }).code ?? '')) throw error;
      await setTimeout(attempt * 200);
    }
  }
}

/** Only what PostgreSQL said of a migration is that migration's fault. @throws RetryableError `unavailable` */
function requireAnswer(error: unknown): void {
  const { code } = error as { code?: unknown };
  if (error instanceof TenantryError && !(error instanceof RetryableError)) return;
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^(08|57P)/.test(code)) return;
  throw new RetryableError('unavailable', 'The database of these homes went away. Run it again.', 5, {
    cause: error,
  });
}

/** By SQLSTATE, what the limits of a migration end. */
const endedBy: Readonly<Record<string, readonly [string, string]>> = {
  '55P03': [`waited ${tries} times for a lock in vain`, 'run it again when the tables are less busy'],
  '57014': [
    'has a statement that takes longer than a function has for it (8 minutes)',
    'do its work in several files, each a part of the rows',
  ],
};

function refusalOf(file: MigrationFile | undefined, error: unknown): Error {
  if (error instanceof TenantryError) return error;
  const { message, code } = error as { message: string; code?: string };
  const [what, remedy] = (code !== undefined && endedBy[code]) || [
    `failed: ${message} (SQLSTATE ${code})`,
    'correct it and run it again',
  ];
  return refused(file?.name ?? 'Completing the home', what, remedy, error);
}
