import { setTimeout } from 'node:timers/promises';
import type { ControlConnection } from '../database/connect.ts';
import { RetryableError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import type { Finding } from '../isolation/isolation.ts';
import { type Application, applyTogether, UnprotectedHomeError } from './apply.ts';
import type { ConcurrentStatement } from './concurrent-statement.ts';
import { pendingOf, readHistory } from './history.ts';
import type { MigrationFile } from './migration-file.ts';
import { allOf, isTooLong, mayPass, requireAnswer } from './refused.ts';
import type { MigrationTarget } from './script.ts';

/** ms. Alone, a home may wait longer for a lock than among 24 others whose locks are held meanwhile. */
const [patient, hasty] = [3_000, 100];
const tries = 3;
/**
 * ms for a statement, and for a home's transaction. A worker begins no transaction after five of its fifteen minutes: what
 * takes longer would die with its function, again and again, and nobody would read why.
 */
const [longestStatement, longest] = [8 * 60_000, 9 * 60_000];
/** ms for a transaction of several homes, which is sized for much less: then there is time for each by itself. */
const longestTogether = 2 * 60_000;

/** What became of one home. `error`: the migration that it could not take; all before that one have been applied. */
export interface HomeOutcome {
  readonly target: MigrationTarget;
  readonly applied: string[];
  error?: Error;
  /** There was no time for all of it: the rest is for another run. */
  isLeft?: boolean;
}

interface Bounds extends Partial<Pick<Application, 'statementTimeout' | 'transactionTimeout' | 'clock'>> {
  readonly completesAll?: boolean;
  /** As `clock` tells it: no transaction begins later, and a home by itself gets each of its files in one of its own. */
  readonly until?: number;
}

/** Over homes of one database. */
interface Run extends Bounds {
  readonly connection: ControlConnection;
  /** How many of one home a transaction held at its end. */
  locks?: number;
  /** A transaction took too long, and PostgreSQL has ended the session with it. */
  isLost: boolean;
}

/**
 * Brings homes of one database to the last of the files: all of them in one transaction, and when that fails each by
 * itself, so that one broken home is known by name and keeps no other from its migration. What there is no time for is left.
 * @returns `locks`: how many of one home a transaction held at its end, when it came to that and there is a time `until`;
 *   `isLost`: the connection is of no more use, because a transaction took too long
 * @throws RetryableError `unavailable` when the server is gone: run it again
 */
export async function migrateHomes(
  connection: ControlConnection,
  targets: readonly MigrationTarget[],
  files: readonly MigrationFile[],
  bounds: Bounds = {},
): Promise<{ outcomes: readonly HomeOutcome[]; locks: number | undefined; isLost: boolean }> {
  const outcomes = targets.map((target): HomeOutcome => ({ target, applied: [] }));
  const run: Run = { ...bounds, connection, isLost: false };
  const parts = sequence(files);
  for (const [index, part] of parts.entries()) {
    const going = outcomes.filter(({ error, isLeft }) => error === undefined && !isLeft);
    if (going.length === 0) break;
    // First too: a statement without a transaction is audited by itself, and a new runtime may ask for more than the home has.
    const completesAll = bounds.completesAll === true && [0, parts.length - 1].includes(index);
    if ('concurrent' in part) await eachConcurrently(run, going, part.concurrent);
    else await together({ run, files: part.files, completesAll }, going);
  }
  return { outcomes, locks: run.locks, isLost: run.isLost };
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
  clock = Date.now,
): Promise<readonly string[]> {
  const { outcomes } = await migrateHomes(connection, [target], files, { clock });
  const { applied, error, isLeft } = outcomes[0]!;
  if (error) throw error;
  if (isLeft)
    throw new RetryableError('unavailable', 'The home’s migrations took too long. Run it again.', 5);
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

interface Together {
  readonly run: Run;
  readonly files: readonly MigrationFile[];
  readonly completesAll: boolean;
}

async function together(work: Together, homes: readonly HomeOutcome[]): Promise<void> {
  const { run, files } = work;
  let ofAll: readonly Finding[] = [];
  if ((homes.length > 1 || run.until === undefined) && !isOver(run)) {
    try {
      const targets = homes.map(({ target }) => target);
      const { applied, locks } = await applyTogether(run.connection, targets, files, boundsOf(work, homes));
      for (const { target, applied: names } of homes) names.push(...applied.get(target.home.homeId)!);
      if (locks !== undefined) noteLocks(run, locks / homes.length);
      return;
    } catch (error) {
      requireAnswer(error);
      run.isLost = isTooLong(error);
      if (homes.length === 1 && error instanceof UnprotectedHomeError) ofAll = error.findings;
    }
  }
  for (const home of homes) {
    await alone(work, home);
    if (home.error instanceof UnprotectedHomeError) home.error = withLater(home.error, ofAll);
  }
}

/** Whoever brings a hundred files to a new home mends them in one go: what all of them would leave comes along. */
function withLater(error: UnprotectedHomeError, ofAll: readonly Finding[]): Error {
  const keyOf = ({ object, finding }: Finding) => `${object} ${finding}`;
  const known = new Set(error.findings.map(keyOf));
  const later = ofAll.filter((finding) => !known.has(keyOf(finding)));
  return later.length === 0 ? error : allOf([error, new UnprotectedHomeError('All files together', later)]);
}

/** File by file, each in a transaction of its own: the error names the file, and every file has the whole time. */
async function alone(work: Together, home: HomeOutcome): Promise<void> {
  const { run, files } = work;
  const { target, applied } = home;
  let file: MigrationFile | undefined;
  let held = 0;
  try {
    if (isOver(run)) return leave(home);
    const history = await asRole(run.connection, 'tenancy_owner', () =>
      readHistory(run.connection, target.home),
    );
    const lacking = pendingOf(history, files);
    // Completing comes with each file, or by itself.
    for (const round of lacking.length === 0 ? [[]] : lacking.map((each) => [each])) {
      if (isOver(run)) return leave(home);
      [file] = round;
      const done = await withRetries(run, () =>
        applyTogether(run.connection, [target], round, boundsOf(work, [home])),
      );
      applied.push(...done.applied.get(target.home.homeId)!);
      held += done.locks ?? 0;
    }
    if (held > 0) noteLocks(run, held);
  } catch (error) {
    requireAnswer(error);
    run.isLost = isTooLong(error);
    home.error = await whyNot(file, error);
  }
}

async function eachConcurrently(
  run: Run,
  homes: readonly HomeOutcome[],
  file: ConcurrentFile,
): Promise<void> {
  // Few files come this way.
  const { applyConcurrently } = await import('./concurrent.ts');
  for (const home of homes) {
    if (isOver(run)) leave(home);
    else
      try {
        const timeout = run.statementTimeout ?? longestStatement;
        if (await applyConcurrently(run.connection, home.target, file, timeout)) home.applied.push(file.name);
      } catch (error) {
        requireAnswer(error);
        home.error = await whyNot(file, error);
      }
  }
}

/** What says it is a page of sentences, which few need: it comes with the first refusal. */
async function whyNot(file: MigrationFile | undefined, error: unknown): Promise<Error> {
  const { refusalOf } = await import('./refusal-of.ts');
  return refusalOf(file, error);
}

const isOver = ({ isLost, clock = Date.now, until = Number.POSITIVE_INFINITY }: Run) =>
  isLost || clock() >= until;

function leave(home: HomeOutcome): void {
  home.isLeft = true;
}

function noteLocks(run: Run, ofOne: number): void {
  run.locks = Math.max(run.locks ?? 0, ofOne);
}

const boundsOf = ({ run, completesAll }: Together, { length }: readonly HomeOutcome[]): Application => ({
  clock: run.clock ?? Date.now,
  completesAll,
  countsLocks: run.until !== undefined,
  statementTimeout: run.statementTimeout ?? longestStatement,
  transactionTimeout: run.transactionTimeout ?? (length === 1 ? longest : longestTogether),
  lockTimeout: length === 1 ? patient : hasty,
});

async function withRetries<T>(run: Run, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (attempt === tries || isOver(run) || !mayPass(error)) throw error;
      await setTimeout(attempt * 200);
    }
  }
}
