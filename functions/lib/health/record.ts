import type { ControlConnection } from '../database/connect.ts';
import type { Strategy } from '../tenant/tenant.ts';
import type { Check, HealthFinding, HealthState } from './findings.ts';
import type { Undone } from './in-a-row.ts';
import type { Passes, Runtimes } from './runtime.ts';

/** What a run found, as it is kept. */
export interface HealthReport {
  /** In use. */
  readonly strategies: readonly Strategy[];
  readonly checks: Readonly<Record<Check, 'ok' | 'red'>>;
  /** The worst first; cut when there are very many. */
  readonly findings: readonly HealthFinding[];
  /** Of all, also those that were cut. */
  readonly found: number;
  readonly sessionLocks: number;
  readonly operationsFailed: number;
  readonly homesQuarantined: number;
  /** Homes with tables of their own that this run has looked at. */
  readonly homes: number;
  readonly ms: number;
}

/** Where the next run goes on. */
export interface Next {
  /** The last home looked at. */
  readonly after: string;
  /** Which sixteenth of the tenants' secrets comes next, where they are too many for one run. */
  readonly secrets: number;
  readonly runtimes: Runtimes;
  readonly passes: Passes;
  readonly undone: Undone;
}

const first: Next = {
  after: '00000000-0000-0000-0000-000000000000',
  secrets: 0,
  runtimes: {},
  passes: {},
  undone: {},
};

export interface HealthRecord {
  readonly state: HealthState;
  readonly startedAt: Date;
  readonly finishedAt: Date;
  readonly ageSeconds: number;
  readonly report: HealthReport;
}

/** A record older than this, s, says that nobody is watching: runs come every minute. */
export const staleAfterSeconds = 180;

export async function lastRecord(catalog: ControlConnection): Promise<HealthRecord | undefined> {
  const { rows } = await catalog.query(
    `select state, started_at, finished_at, report, extract(epoch from now() - finished_at)::float8 as age
       from catalog.health_runs order by run_id desc limit 1`,
  );
  const row = rows[0];
  return (
    row && {
      state: row.state,
      startedAt: row.started_at,
      finishedAt: row.finished_at,
      ageSeconds: row.age,
      report: row.report,
    }
  );
}

export async function readNext(catalog: ControlConnection): Promise<Next> {
  const { rows } = await catalog.query<{ next: Next }>(
    'select next from catalog.health_runs order by run_id desc limit 1',
  );
  return { ...first, ...rows[0]?.next };
}

/** Keeps a day of runs: what an operator asks for in the morning. */
export async function saveRecord(
  catalog: ControlConnection,
  startedAt: Date,
  state: HealthState,
  report: HealthReport,
  next: Next,
): Promise<void> {
  await catalog.query(
    'insert into catalog.health_runs (started_at, state, report, next) values ($1, $2, $3, $4)',
    [startedAt, state, JSON.stringify(report), JSON.stringify(next)],
  );
  await catalog.query(
    `update catalog.health_runs set next = null where next is not null and run_id < (select max(run_id) from catalog.health_runs)`,
  );
  await catalog.query(`delete from catalog.health_runs where finished_at < now() - interval '1 day'`);
}
