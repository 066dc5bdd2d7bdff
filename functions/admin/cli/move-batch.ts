import type { Command } from 'commander';
import type { BatchPlan, BatchView } from '../../lib/admin/move-batch.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { follow, type Progress, requireDone } from './follow.ts';
import { duration, type Output, table } from './output.ts';

/** `move --tier …`: what is not said has the API's default. */
export async function moveTier(
  client: AdminClient,
  output: Output,
  request: object,
  { dryRun, idempotencyKey, wait }: { dryRun?: boolean; idempotencyKey?: string; wait?: boolean },
): Promise<void> {
  if (dryRun) {
    const { body } = await client.post<BatchPlan>('/moves/plan', request);
    output.answer(body, planText(body));
    if (body.tenants.every(({ blocks }) => blocks.length > 0))
      throw new CommandFailure(
        3,
        'move_refused',
        `Nobody of the tier ${body.tier} can be moved to ${body.to} now.`,
      );
    return;
  }
  const { body } = await client.post<BatchView>('/moves', request, idempotencyKey);
  await finish(client, output, body, wait ?? false);
}

export function batchCommands(move: Command, client: AdminClient, output: () => Output): void {
  move
    .command('batch [id]')
    .description('the last batch of moves, or one of `operations`')
    .option('--wait', 'until all of its tenants are moved, or have failed')
    .action(async (id: string | undefined, { wait }) => {
      const { body } = await client.get<BatchView>(`/moves/${encodeURIComponent(id ?? 'latest')}`);
      await finish(client, output(), body, wait ?? false);
    });
  move
    .command('halt')
    .description('begin no other move of the batch; those that are under way go on')
    .action(async () => {
      const { body } = await client.post<BatchView>('/moves/halt', {});
      output().answer(body, batchText(body));
    });
}

async function finish(client: AdminClient, output: Output, begun: BatchView, waits: boolean): Promise<void> {
  const followed = {
    path: `/moves/${begun.operation.id}`,
    command: `move batch ${begun.operation.id} --wait`,
  };
  const batch = waits ? await follow(client, output, followed, progressOf) : begun;
  output.answer(batch, batchText(batch));
  const { id, state } = batch.operation;
  requireDone(batch.operation);
  if (state === 'running')
    output.note(`It goes on by itself: npm run tenants -- move batch ${id} [--wait], or move halt.`);
}

function progressOf({ counts, tenants, operation }: BatchView, now = Date.now()): Progress | undefined {
  if (operation.state !== 'running') return undefined;
  const { moved, failed } = counts;
  const under = tenants
    .filter(({ state }) => state === 'moving')
    .map(({ tenant, step }) => `${tenant} ${step ?? ''}`);
  const passed = now - Date.parse(operation.startedAt);
  const all = tenants.length - counts.skipped;
  const left =
    moved > 0 ? `, about ${duration((passed / (moved + failed)) * (all - moved - failed))} left` : '';
  const text = `${moved} of ${all} moved, ${failed} failed, ${duration(passed)}${left}`;
  return { text: [text, under.join(', ')].filter(Boolean).join(': '), news: JSON.stringify(counts) };
}

function batchText({ operation, tier, to, counts, tenants }: BatchView): string {
  const rows = tenants.map(({ tenant, state, step, rows, pauseMs, reason }) => [
    tenant,
    state,
    rows === null ? '' : String(rows),
    pauseMs === null ? '' : `${Math.round(pauseMs)} ms`,
    reason ?? step ?? '',
  ]);
  const sums = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([state, count]) => `${count} ${state}`);
  return [
    `Batch ${operation.id}, ${tier} to ${to}: ${operation.state}; ${sums.join(', ')}`,
    table(['tenant', 'state', 'rows', 'writers waited', ''], rows),
  ].join('\n');
}

function planText({ tier, to, concurrency, tenants }: BatchPlan): string {
  if (tenants.length === 0) return `Everybody of the tier ${tier} is there already, or the tier is empty.`;
  return [
    `${tenants.length} of the tier ${tier} to ${to}, ${concurrency} at a time. Sizes and times of one: npm run tenants -- move <slug> --to ${to} --dry-run`,
    table(
      ['tenant', 'in its way'],
      tenants.map(({ tenant, blocks }) => [tenant, blocks.join(' ')]),
    ),
  ].join('\n');
}
