import { setTimeout } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { MoveView } from '../../lib/admin/move.ts';
import type { MovePlan } from '../../lib/lifecycle/move-plan.ts';
import { strategies } from '../../lib/tenant/tenant.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { card, duration, json, moment, type Output, table } from './output.ts';
import { tenantPath } from './tenants.ts';

export function moveCommands(program: Command, client: AdminClient, output: () => Output): void {
  const move = program
    .command('move')
    .description(
      'move a tenant to another strategy while its agents keep working: move <slug> --to <strategy>',
    );

  move
    .command('start <slug>', { isDefault: true })
    .description('begin a move; with --dry-run, say what it would carry and what keeps it from beginning')
    .addOption(new Option('--to <strategy>', 'where to').choices(strategies).makeOptionMandatory())
    .option('--window <minutes>', 'how long the way back stays open', minutes, 60)
    .option('--dry-run', 'change nothing')
    .option('--idempotency-key <key>', 'the same key and request: the same answer')
    .option('--wait', 'until the tenant lives in its new home, or the move has failed')
    .action(async (slug: string, { to, window, dryRun, idempotencyKey, wait }) => {
      const body = { to, windowSeconds: window * 60 };
      if (dryRun) {
        const { body: plan } = await client.post<MovePlan>(tenantPath(slug, '/move/plan'), body);
        output().print(output().json ? json(plan) : planText(plan));
        if (plan.blocks.length > 0) throw new CommandFailure(3, 'move_refused', plan.blocks.join('\n'));
        return;
      }
      const { body: begun } = await client.post<MoveView>(tenantPath(slug, '/move'), body, idempotencyKey);
      await finish(client, output(), begun, wait);
    });

  move
    .command('status <slug>')
    .description('the last move of a tenant')
    .action(async (slug: string) => {
      const { body } = await client.get<MoveView>(tenantPath(slug, '/move'));
      output().print(output().json ? json(body) : moveCard(body));
    });

  for (const [verb, does, done] of [
    [
      'cancel',
      'take a move back before its switch',
      'The tenant stays where it is; what the move has made goes at its next step.',
    ],
    [
      'reverse',
      'back to the first home, with all that was written since',
      'It is switched back within about a minute.',
    ],
    [
      'complete',
      'remove the home that was left: there is no way back after it',
      'The home that was left is removed within about a minute.',
    ],
  ] as const)
    move
      .command(`${verb} <slug>`)
      .description(does)
      .action(async (slug: string) => {
        const { body } = await client.post<MoveView>(tenantPath(slug, `/move/${verb}`), {});
        output().print(output().json ? json(body) : done);
        output().note(`npm run tenants -- move status ${slug}`);
      });
}

async function finish(client: AdminClient, output: Output, begun: MoveView, waits: boolean): Promise<void> {
  const move = waits ? await followMove(client, output, begun) : begun;
  output.print(output.json ? json(move) : moveCard(move));
  const { state, failedStep, reason } = move.operation;
  if (state === 'failed')
    throw new CommandFailure(
      1,
      'operation_failed',
      `Failed at ${failedStep}: ${reason}\nThe tenant lives in its first home.`,
    );
  if (move.phase === 'moving') output.note(`It is on its way: npm run tenants -- move status ${move.tenant}`);
  if (move.phase === 'switched')
    output.note(`The way back is open: npm run tenants -- move reverse ${move.tenant}, or complete.`);
}

async function followMove(client: AdminClient, output: Output, begun: MoveView): Promise<MoveView> {
  let last = '';
  for (let asked = 0; ; asked++) {
    const { body: move } = await client.get<MoveView>(tenantPath(begun.tenant, '/move'));
    if (move.phase !== 'moving' || move.operation.state !== 'running') {
      output.endProgress();
      return move;
    }
    const step = move.operation.step ?? 'starting';
    output.progress(`${step}, ${duration(Date.now() - Date.parse(move.operation.startedAt))}`, step !== last);
    last = step;
    await setTimeout(asked < 60 ? 500 : 2_000);
  }
}

function moveCard({
  tenant,
  operation,
  from,
  to,
  phase,
  wanted,
  switchedAt,
  windowEndsAt,
  pauseMs,
  comparedAt,
  differs,
  rows,
}: MoveView) {
  const moved = rows && Object.values(rows).reduce((sum, count) => sum + count, 0);
  return card({
    tenant,
    move: `from ${from} to ${to}`,
    operation: `${operation.id}, ${operation.state}`,
    phase,
    step: operation.failedStep ?? operation.step,
    reason: operation.reason,
    wanted,
    switched: switchedAt && moment(switchedAt),
    'writers waited': pauseMs === null ? null : `${Math.round(pauseMs)} ms`,
    rows: moved === null ? null : `${moved}, the same in both homes`,
    'compared again': comparedAt && `${moment(comparedAt)}, the same in both homes`,
    differs,
    'way back until': windowEndsAt && moment(windowEndsAt),
  });
}

function planText({ tenant, from, to, tables, blocks, pauseMs }: MovePlan): string {
  const rows = tables.map((each) => [each.table, String(each.rows), size(each.bytes)]);
  return [
    `${tenant}: from ${from ?? 'no home'} to ${to}`,
    table(['table', 'rows', 'size'], rows),
    pauseMs === null
      ? 'No move has switched yet: how long writers will wait is not known.'
      : `Writers waited ${Math.round(pauseMs)} ms in the last moves (median).`,
    blocks.length === 0 ? 'Nothing is in its way.' : 'In its way:',
  ].join('\n');
}

const size = (bytes: number) =>
  bytes < 1_000_000 ? `${Math.ceil(bytes / 1_000)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;

function minutes(text: string): number {
  if (!/^(0|[1-9]\d{0,3})$/.test(text) || Number(text) > 1_440)
    throw new InvalidArgumentError('It has to be a whole number of minutes, 1440 at most.');
  return Number(text);
}
