import { setTimeout } from 'node:timers/promises';
import { moment } from '../../lib/admin/moment.ts';
import type { OperationView, OperationWithSteps } from '../../lib/admin/operations.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { duration, type Output, table } from './output.ts';

/** ms that somebody who follows an operation waits for an answer: longer than a failover takes. */
const patience = 120_000;

/** Asks again while the admin API can't answer: what was begun goes on, and whoever waits for it should hear of its end. */
export async function askAgain<T>(client: AdminClient, output: Output, path: string): Promise<T> {
  const since = Date.now();
  for (let isNews = true; ; isNews = false) {
    try {
      return (await client.get<T>(path)).body;
    } catch (error) {
      const mayPass = error instanceof CommandFailure && error.exitCode === 4;
      if (!mayPass || Date.now() - since > patience) throw error;
      output.progress(`${error.message} Asking again.`, isNews);
    }
    await setTimeout(1_000);
  }
}

/** What is shown of something under way: a line, and what of it is news where no terminal replaces lines. */
export interface Progress {
  readonly text: string;
  readonly news: string;
}

/** What is followed: where the admin API tells of it, and the command that shows it later. */
interface Followed {
  readonly path: string;
  readonly command: string;
}

/** Shows its progress until it has none: it has ended, or waits for somebody. */
export async function follow<T>(
  client: AdminClient,
  output: Output,
  { path, command }: Followed,
  progressOf: (seen: T) => Progress | undefined,
): Promise<T> {
  tellWhereToLook(output, command);
  let last = '';
  for (let asked = 0; ; asked++) {
    const seen = await askAgain<T>(client, output, path);
    const progress = progressOf(seen);
    if (progress === undefined) {
      output.endProgress();
      return seen;
    }
    output.progress(progress.text, progress.news !== last);
    last = progress.news;
    // Half a second while it may be short, then less often: an instance takes minutes.
    await setTimeout(asked < 60 ? 500 : 2_000);
  }
}

/** Ctrl-C ends the waiting alone: says that what was begun goes on, and where to look. */
function tellWhereToLook(output: Output, command: string): void {
  process.once('SIGINT', () => {
    output.note(`It goes on: npm run tenants -- ${command}`);
    process.exit(130);
  });
}

const followedOperation = (id: string): Followed => ({
  path: `/operations/${id}`,
  command: `operations ${id}`,
});

/** The current step, the elapsed time and an estimate until the operation has ended. */
export const followOperation = (client: AdminClient, output: Output, operationId: string) =>
  follow<OperationWithSteps>(client, output, followedOperation(operationId), (operation) => {
    if (operation.state !== 'running') return undefined;
    const step = stepOf(operation);
    return { text: `${step}, ${elapsed(operation)}`, news: step };
  });

/** @throws CommandFailure when the operation has failed, was refused or cancelled; one that still runs is none of these */
export function requireDone({ kind, state, failedStep, reason, result }: OperationView, remark = ''): void {
  const failed = [`Failed at ${failedStep}: ${reason}`, remark].filter(Boolean).join('\n');
  if (state === 'failed' && result.refused) throw new CommandFailure(3, `${kind}_refused`, failed);
  if (state === 'failed') throw new CommandFailure(1, 'operation_failed', failed);
  if (state === 'cancelled')
    throw new CommandFailure(1, 'operation_cancelled', reason ?? 'It was cancelled.');
}

function stepOf({ steps }: OperationWithSteps): string {
  const current = steps.at(-1);
  if (current === undefined) return 'starting';
  // Waiting is asking again: the tenth attempt of a wait is no news.
  const again = current.attempt > 1 && current.outcome === 'failed' ? ` (${current.reason})` : '';
  return `${current.step}${again}`;
}

function elapsed({ startedAt, expectedSeconds }: OperationView, now = Date.now()): string {
  const since = duration(now - Date.parse(startedAt));
  return expectedSeconds === null ? since : `${since} of about ${duration(expectedSeconds * 1_000)}`;
}

export function operationsTable(operations: readonly OperationView[]): string {
  const rows = operations.map((operation) => [
    operation.id,
    operation.kind,
    operation.tenant ?? '',
    operation.state,
    operation.failedStep ?? operation.step ?? '',
    moment(operation.startedAt),
    operation.finishedAt === null
      ? elapsed(operation)
      : duration(Date.parse(operation.finishedAt) - Date.parse(operation.startedAt)),
  ]);
  return table(['operation', 'kind', 'tenant', 'state', 'step', 'started', 'took'], rows);
}

/** One of them, with its steps and how it ended. */
export function operationText(operation: OperationWithSteps): string {
  const { state, failedStep, reason } = operation;
  return [
    operationsTable([operation]),
    ...(reason === null ? [] : [failedStep === null ? reason : `${state} at ${failedStep}: ${reason}`]),
    ...(state === 'failed' ? [whatNext(operation)] : []),
    stepsText(operation),
  ].join('\n');
}

/** The command that says how to go on, or does it; an export or an import is begun anew by whoever wanted it. */
export function whatNext({ id, kind, tenant }: OperationView): string {
  const orNothing = `; to leave it at that: npm run tenants -- operations cancel ${id}`;
  const command = {
    provision: `why ${tenant}`,
    offboard: `why ${tenant}`,
    move: `why ${tenant}`,
    migrate: `migrate status ${id}; when that is mended: npm run tenants -- migrate resume`,
    batch: `move batch ${id}${orNothing}`,
    export: `export ${tenant} --to …${orNothing}`,
    import: `import ${tenant} --from …${orNothing}`,
  }[kind];
  return `What to do: npm run tenants -- ${command}`;
}

export function stepsText({ steps, earlierSteps }: OperationWithSteps): string {
  const rows = steps.map(({ step, attempt, outcome, reason, startedAt }) => [
    step,
    String(attempt),
    outcome,
    moment(startedAt),
    reason ?? '',
  ]);
  const text = table(['step', 'attempt', 'outcome', 'started', 'reason'], rows);
  return earlierSteps > 0 ? `${text}\n${earlierSteps} earlier attempts are not listed.` : text;
}

/** Prints operations as they change, until the reader has had enough. */
export async function watchOperations(client: AdminClient, output: Output): Promise<never> {
  const seen = new Map<string, string>();
  for (let isFirst = true; ; isFirst = false) {
    const { operations } = await askAgain<{ operations: OperationView[] }>(client, output, '/operations');
    const changed = operations.filter(({ id, state, step }) => seen.get(id) !== `${state} ${step}`);
    for (const { id, state, step } of operations) seen.set(id, `${state} ${step}`);
    // What had ended before is history.
    const news = isFirst ? changed.filter(({ state }) => state === 'running') : changed.toReversed();
    for (const operation of news) output.print(output.json ? JSON.stringify(operation) : line(operation));
    if (isFirst && news.length === 0) output.note('Nothing is running. Waiting; Ctrl-C ends this.');
    await setTimeout(1_000);
  }
}

function line(operation: OperationView): string {
  const { kind, tenant, state, step, failedStep, reason } = operation;
  const where = state === 'failed' ? `at ${failedStep}: ${reason}` : (reason ?? step ?? 'starting');
  return `${new Date().toISOString().slice(11, 19)}  ${kind} ${tenant ?? ''}  ${state}  ${where}  ${elapsed(operation)}`;
}
