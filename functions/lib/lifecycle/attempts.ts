import type { ControlConnection } from '../database/connect.ts';

/** One attempt of one step, as the operator sees it. */
export interface StepRecord {
  readonly step: string;
  readonly attempt: number;
  readonly outcome: 'running' | 'done' | 'failed';
  readonly reason: string | undefined;
  readonly startedAt: Date;
  readonly finishedAt: Date | undefined;
}

/**
 * Begins the record of one attempt. A step may run in parallel with itself: each has a number of its own.
 * @returns undefined when the operation has ended, or is not there
 */
export async function beginAttempt(
  catalog: ControlConnection,
  operationId: string,
  step: string,
): Promise<number | undefined> {
  for (;;) {
    const { rows } = await catalog.query<{ attempt: number | null }>(
      `with running as (select from catalog.operations where operation_id = $1 and state = 'running'),
       begun as (
         insert into catalog.operation_steps (operation_id, step, attempt)
         select $1, $2, coalesce((select max(attempt) from catalog.operation_steps where operation_id = $1 and step = $2), 0) + 1
           from running
         on conflict do nothing returning attempt)
       select attempt from running left join begun on true`,
      [operationId, step],
    );
    if (rows[0]?.attempt !== null) return rows[0]?.attempt;
  }
}

/** Runs one attempt of a step and ends the record of it. A process that dies leaves the attempt `running`. */
export async function recorded<T>(
  catalog: ControlConnection,
  operationId: string,
  step: string,
  attempt: number,
  work: () => Promise<T>,
): Promise<T> {
  const end = (outcome: string, reason: string | null) =>
    catalog.query(
      `update catalog.operation_steps set outcome = $4, reason = $5, finished_at = now()
        where operation_id = $1 and step = $2 and attempt = $3`,
      [operationId, step, attempt, outcome, reason],
    );
  try {
    const result = await work();
    await end('done', null);
    return result;
  } catch (error) {
    await end('failed', (error as Error).message.slice(0, 2_000)).catch(() => {});
    throw error;
  }
}

/** Attempts that are told of one operation: with their reasons they stay far below what one answer of Lambda may hold. */
const STEPS_TOLD = 100;

/** The newest attempts, the oldest of them first. */
export async function readSteps(catalog: ControlConnection, operationId: string): Promise<StepRecord[]> {
  const { rows } = await catalog.query(
    'select * from catalog.operation_steps where operation_id = $1 order by started_at desc, attempt desc limit $2',
    [operationId, STEPS_TOLD],
  );
  return rows.toReversed().map((row) => ({
    step: row.step,
    attempt: row.attempt,
    outcome: row.outcome,
    reason: row.reason ?? undefined,
    startedAt: row.started_at,
    finishedAt: row.finished_at ?? undefined,
  }));
}

export async function countSteps(catalog: ControlConnection, operationId: string): Promise<number> {
  const { rows } = await catalog.query<{ steps: number }>(
    'select count(*)::integer as steps from catalog.operation_steps where operation_id = $1',
    [operationId],
  );
  return rows[0]!.steps;
}
