import { type Command, InvalidArgumentError, Option } from 'commander';
import { moment } from '../../lib/admin/moment.ts';
import type { MoveView } from '../../lib/admin/move.ts';
import type { MovePlan } from '../../lib/lifecycle/move-plan.ts';
import { placements, strategies, tiers } from '../../lib/tenant/tenant.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { follow, type Progress, requireDone } from './follow.ts';
import { batchCommands, moveTier } from './move-batch.ts';
import { wholeNumber } from './options.ts';
import { card, duration, type Output, table } from './output.ts';
import { tenantPath } from './tenants.ts';

export function moveCommands(program: Command, client: AdminClient, output: () => Output): void {
  const move = program
    .command('move')
    .description(
      'move a tenant to another strategy while its agents keep working: move <slug> --to <strategy>',
    );

  move
    .command('start [slug]', { isDefault: true })
    .description(
      'begin a move, or, with --tier, of all tenants of a tier; with --dry-run, say what it would carry and what keeps it from beginning',
    )
    .addOption(new Option('--to <strategy>', 'where to').choices(strategies).makeOptionMandatory())
    .addOption(
      new Option(
        '--placement <placement>',
        'of a database of its own; without it, on an instance of its own',
      ).choices(placements),
    )
    .option('--cluster <id>', 'the shared cluster to go to; without it, the one that the tenant is in')
    .addOption(new Option('--tier <tier>', 'all tenants of this tier').choices(tiers))
    .option('--concurrency <n>', 'of a tier: so many at once', wholeNumber)
    .option('--stop-on-failure', 'of a tier: begin no other move after one failure')
    .option('--window <minutes>', 'how long the way back stays open', minutes, 60)
    .option('--dry-run', 'change nothing')
    .option('--idempotency-key <key>', 'the same key and request: the same answer')
    .option('--wait', 'until the tenant lives in its new home, or the move has failed')
    .action(async (slug: string | undefined, options) => {
      const { to, placement, cluster, tier, concurrency, stopOnFailure, window } = options;
      const { dryRun, idempotencyKey, wait } = options;
      const body = { to, placement, cluster, windowSeconds: window * 60 };
      if ((slug === undefined) === (tier === undefined))
        throw new CommandFailure(2, 'usage', 'Name a tenant, or a tier with --tier.');
      if (slug === undefined)
        return moveTier(client, output(), { ...body, tier, concurrency, stopOnFailure }, options);
      if (dryRun) {
        const { body: plan } = await client.post<MovePlan>(tenantPath(slug, '/move/plan'), body);
        output().answer(plan, planText(plan));
        if (plan.blocks.length > 0) throw new CommandFailure(3, 'move_refused', plan.blocks.join('\n'));
        return;
      }
      const { body: begun } = await client.post<MoveView>(tenantPath(slug, '/move'), body, idempotencyKey);
      await finish(client, output(), begun, wait);
    });

  batchCommands(move, client, output);

  move
    .command('status <slug>')
    .description('the last move of a tenant')
    .action(async (slug: string) => {
      const { body } = await client.get<MoveView>(tenantPath(slug, '/move'));
      output().answer(body, moveCard(body));
      hint(output(), body);
    });

  for (const [verb, does, done] of [
    [
      'pause',
      'stop copying before the switch, for as long as you want; changes go on being noted',
      'It pauses within seconds, or when the step that it is at has ended.',
    ],
    ['resume', 'go on with a paused move, where it was', 'It goes on.'],
    [
      'cancel',
      'take a move back before its switch',
      'The tenant stays where it is; what the move has made goes at its next step.',
    ],
    [
      'reverse',
      'back to the first home, with all that was written since',
      'It is switched back within about a minute, or within a quarter of an hour while its homes differ or one is away.',
    ],
    [
      'complete',
      'remove the home that was left: there is no way back after it',
      'The home that was left is removed within about a minute, or within a quarter of an hour while both differ or one is away.',
    ],
  ] as const) {
    const command = move.command(`${verb} <slug>`).description(does);
    if (verb === 'complete')
      command.option('--without-comparison', 'the home that was left is lost: do not wait for it');
    command.action(async (slug: string, asked: { withoutComparison?: true }) => {
      const { body } = await client.post<MoveView>(tenantPath(slug, `/move/${verb}`), asked);
      output().answer(body, done);
      const warning = whileSuspended(body);
      if (warning !== undefined) output().note(warning);
      output().note(`npm run tenants -- move status ${slug}`);
    });
  }
}

async function finish(client: AdminClient, output: Output, begun: MoveView, waits: boolean): Promise<void> {
  const followed = { path: tenantPath(begun.tenant, '/move'), command: `move status ${begun.tenant}` };
  const move = waits ? await follow(client, output, followed, progressOf) : begun;
  output.answer(move, moveCard(move));
  const livesInNewHome = move.phase === 'switched' || move.phase === 'completed';
  requireDone(move.operation, `The tenant lives in its ${livesInNewHome ? 'new' : 'first'} home.`);
  hint(output, move);
}

/** How it goes on, and what to run next; nothing of one that has ended. */
export function nextOf(move: MoveView, now = Date.now()): string | undefined {
  const { tenant, phase, operation, wanted, pausedAt, windowEndsAt } = move;
  if (operation.state !== 'running') return undefined;
  const run = (verb: string) => `npm run tenants -- move ${verb} ${tenant}`;
  if (wanted !== null) return `What was asked for, ${wanted}, is on its way: ${run('status')}`;
  if (pausedAt !== null)
    return `It is paused, and the tenant’s changes are being noted: ${run('resume')}, or cancel.`;
  if (phase === 'moving') return `It is on its way: ${run('status')}`;
  if (phase === 'cancelled')
    return `What it has made is being taken away; the tenant stays where it is: ${run('status')}`;
  if (phase === 'switched' && now < Date.parse(windowEndsAt!))
    return `The way back is open until ${moment(windowEndsAt!)}, and its migrations wait for so long: ${run('reverse')}, or complete.`;
  return `The home that it has left goes next, once both were seen to hold the same: ${run('status')}`;
}

function hint(output: Output, move: MoveView): void {
  const next = nextOf(move);
  if (next !== undefined) output.note(next);
}

/** Of one that is being taken back too: only at the end of that is it known to have failed, and why. */
export function progressOf({ phase, pausedAt, operation }: MoveView, now = Date.now()): Progress | undefined {
  const isOnItsWay = phase === 'moving' || phase === 'cancelled';
  if (!isOnItsWay || pausedAt !== null || operation.state !== 'running') return undefined;
  const step = operation.step ?? 'starting';
  return { text: `${step}, ${duration(now - Date.parse(operation.startedAt))}`, news: step };
}

/** Its copies go on; what changes where the tenant lives needs it active, because nobody could try the next home. */
export function whileSuspended({ tenant, phase, isSuspended, operation }: MoveView): string | undefined {
  if (!isSuspended || operation.state !== 'running') return undefined;
  const undo = `npm run tenants -- resume ${tenant}`;
  if (phase === 'moving')
    return `The tenant is suspended: the move fails should it come to the switch before that is undone: ${undo}`;
  if (phase === 'switched')
    return `The tenant is suspended: it can be moved back only once that is undone: ${undo}`;
  return undefined;
}

function moveCard(move: MoveView) {
  const {
    tenant,
    operation,
    from,
    to,
    phase,
    wanted,
    pausedAt,
    switchedAt,
    windowEndsAt,
    pauseMs,
    comparedAt,
    differs,
    rows,
    notRemoved,
  } = move;
  const moved = rows && Object.values(rows).reduce((sum, count) => sum + count, 0);
  return card({
    tenant,
    move: `from ${from} to ${to}`,
    operation: `${operation.id}, ${operation.state}`,
    phase,
    step: operation.failedStep ?? operation.step,
    reason: operation.reason,
    wanted,
    suspended: whileSuspended(move),
    'paused since': pausedAt && moment(pausedAt),
    switched: switchedAt && moment(switchedAt),
    'writers waited': pauseMs === null ? null : `${Math.round(pauseMs)} ms`,
    rows: moved === null ? null : `${moved}, the same in both homes`,
    'compared again': comparedAt && `${moment(comparedAt)}, the same in both homes`,
    differs,
    'not removed': notRemoved,
    'way back until': windowEndsAt && moment(windowEndsAt),
  });
}

function planText(plan: MovePlan): string {
  const { tenant, from, to, tables, blocks, advice, seconds, instanceSeconds, pauseMs, basis } = plan;
  const all = tables.reduce((sum, { rows, bytes }) => ({ rows: sum.rows + rows, bytes: sum.bytes + bytes }), {
    rows: 0,
    bytes: 0,
  });
  const rows = tables.map((each) => [each.table, String(each.rows), size(each.bytes)]);
  return [
    `${tenant}: from ${from ?? 'no home'} to ${to}`,
    table(['table', 'rows', 'size'], [...rows, ['in all', String(all.rows), size(all.bytes)]]),
    seconds === null
      ? 'How long it will take is not known.'
      : `About ${duration(seconds * 1_000)} until the switch${instanceSeconds > 0 ? `, ${duration(instanceSeconds * 1_000)} of it for the instance` : ''}, more while it writes much.`,
    pauseMs === null
      ? 'How long writers will wait is not known.'
      : `Writers will wait about ${Math.round(pauseMs)} ms.`,
    `Estimated from: ${basis}.`,
    ...advice,
    blocks.length === 0 ? 'Nothing is in its way.' : 'In its way:',
  ].join('\n');
}

const size = (bytes: number) =>
  bytes < 1_000_000 ? `${Math.ceil(bytes / 1_000)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;

/** Checked here, because the admin API counts in seconds. */
function minutes(text: string): number {
  const number = wholeNumber(text);
  if (number > 1_440) throw new InvalidArgumentError('It has to be 1440 minutes at most.');
  return number;
}
