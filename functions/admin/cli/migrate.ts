import type { Command } from 'commander';
import type { DriftPage } from '../../lib/admin/drift.ts';
import type { PlanView } from '../../lib/admin/migration-plan.ts';
import type { PinView, RunView } from '../../lib/admin/migrations.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { follow, type Progress, requireDone } from './follow.ts';
import { list, wholeNumber } from './options.ts';
import { duration, type Output, table } from './output.ts';
import { tenantPath } from './tenants.ts';

export function migrateCommands(program: Command, client: AdminClient, output: () => Output): void {
  const migrate = program.command('migrate').description('bring all tenants to this release’s schema');
  const options = (command: Command) =>
    command
      .option('--version <version>', 'up to this migration; without it, the newest')
      .option(
        '--canaries <tenants>',
        'who goes first, comma-separated: tenants with tables of their own; without it, one home of each strategy',
        list,
      )
      .option('--percent <percent>', 'of each tier, after the canaries', wholeNumber)
      .option('--tolerated <homes>', 'how many may break before the run halts', wholeNumber);

  options(migrate.command('plan'))
    .description(
      'what a run would do, and what would refuse it: homes, rings, files and their locks; nothing is changed',
    )
    .action(async (request) => {
      const { body } = await client.post<PlanView>('/migrations/plan', request);
      output().answer(body, planText(body));
      const refused = body.rehearsals.filter(({ outcome }) => outcome === 'refused');
      if (refused.length > 0)
        throw new CommandFailure(
          3,
          'migration_refused',
          [...Map.groupBy(refused, ({ reason }) => reason)]
            .map(([reason, of]) => {
              const where = of.map(({ strategy }) => strategy).join(', ');
              return `Tried in an empty home of the strategy ${where}: ${reason}`;
            })
            .join('\n'),
        );
    });

  options(migrate.command('run'))
    .description('migrate all homes, ring by ring')
    .option('--idempotency-key <key>', 'the same key and request: the same run')
    .option('--wait', 'until it has ended, as without it')
    .option('--no-wait', 'return when it has begun')
    .action(async ({ idempotencyKey, wait, ...request }) => {
      const { body } = await client.post<RunView>('/migrations', request, idempotencyKey);
      await finish(client, output(), body, wait);
    });

  migrate
    .command('resume')
    .description('go on with what the last run left: only homes that are behind are touched')
    .option('--idempotency-key <key>', 'the same key: the same run')
    .option('--wait', 'until it has ended, as without it')
    .option('--no-wait', 'return when it has begun')
    .action(async ({ idempotencyKey, wait }) => {
      const { body } = await client.post<RunView>('/migrations/resume', {}, idempotencyKey);
      await finish(client, output(), body, wait);
    });

  migrate
    .command('halt')
    .description('stop the run; batches that are under way end first')
    .action(async () => {
      const { body } = await client.post<RunView>('/migrations/halt', {});
      output().answer(body, runText(body));
      output().note('Batches under way end first: npm run tenants -- migrate status');
    });

  migrate
    .command('status [run]')
    .description('the last run, or one of `operations`')
    .action(async (run: string | undefined) => {
      const { body } = await client.get<RunView>(`/migrations/${encodeURIComponent(run ?? 'latest')}`);
      output().answer(body, runText(body));
    });

  migrate
    .command('pin <tenant> <version>')
    .description('keep a tenant at a version')
    .requiredOption('--reason <text>', 'why; reported by every run')
    .option('--days <days>', 'until it expires', wholeNumber, 30)
    .action(async (slug: string, version: string, { reason, days }) => {
      const { body } = await client.post<PinView>(tenantPath(slug, '/pin'), { version, reason, days });
      output().answer(body, `${slug} stays at ${body.version} until ${body.until.slice(0, 10)}.`);
    });

  migrate
    .command('unpin <tenant>')
    .description('let a tenant follow again')
    .action(async (slug: string) => {
      const { body } = await client.post<object>(tenantPath(slug, '/unpin'), {});
      output().answer(body, `${slug} follows the next run.`);
    });

  migrate
    .command('drift [tenant]')
    .description('compare homes with what their version should be')
    .option('--correct', 'tell the catalog of homes that are behind what it takes them for')
    .action(async (slug: string | undefined, { correct }) => {
      const drifts: Drift[] = [];
      let checked = 0;
      for (let after: string | null = ''; after !== null; ) {
        const of: string = slug === undefined ? '' : `&tenant=${encodeURIComponent(slug)}`;
        const path = `/migrations/drift?after=${encodeURIComponent(after)}${of}`;
        const page: DriftPage = (
          await (correct ? client.post<DriftPage>(path, {}) : client.get<DriftPage>(path))
        ).body;
        drifts.push(...page.drifts);
        checked += page.checked;
        after = page.next;
        output().progress(`${checked} homes compared`, false);
      }
      output().endProgress();
      output().answer({ checked, drifts }, driftText(checked, drifts));
      if (drifts.length > 0)
        throw new CommandFailure(1, 'drift', `${drifts.length} differences in ${checked} homes.`);
    });
}

type Drift = DriftPage['drifts'][number];

function driftText(checked: number, drifts: readonly Drift[]): string {
  if (drifts.length > 0)
    return table(
      ['tenant', 'object', 'drift'],
      drifts.map(({ tenant, object, drift }) => [tenant ?? '(shared tables)', object, drift]),
    );
  return checked === 1
    ? '1 home is what its version should be.'
    : `${checked} homes are what their versions should be.`;
}

async function finish(client: AdminClient, output: Output, begun: RunView, waits = true): Promise<void> {
  const followed = { path: `/migrations/${begun.operation.id}`, command: 'migrate status' };
  const run = waits ? await follow(client, output, followed, progressOf) : begun;
  output.answer(run, runText(run));
  requireDone(run.operation, 'When that is mended: npm run tenants -- migrate resume');
  const broken = run.rings.reduce((sum, { quarantined }) => sum + quarantined, 0);
  if (run.operation.state === 'done' && broken > 0)
    output.note(
      `${broken} ${broken === 1 ? 'home was' : 'homes were'} left out (above), and ${broken === 1 ? 'serves' : 'serve'} on with the old tables. When that is mended: npm run tenants -- migrate run`,
    );
  const waiting = run.rings.reduce((sum, { moving }) => sum + moving, 0);
  if (run.operation.state === 'done' && waiting > 0)
    output.note(
      `${waiting} ${waiting === 1 ? 'home waits' : 'homes wait'} for moves (above). Then: npm run tenants -- migrate run`,
    );
  if (run.operation.state === 'running') output.note('It is on its way: npm run tenants -- migrate status');
}

function progressOf({ rings, operation }: RunView, now = Date.now()): Progress | undefined {
  if (operation.state !== 'running') return undefined;
  const sum = (part: keyof Omit<RunView['rings'][number], 'ring'>) =>
    rings.reduce((total, ring) => total + ring[part], 0);
  const [done, broken] = [sum('done'), sum('quarantined')];
  const all = done + broken + sum('pending') + sum('working');
  const ring =
    rings.find(({ pending, working }) => pending + working > 0)?.ring ?? operation.step ?? 'starting';
  const passed = now - Date.parse(operation.startedAt);
  const left = done > 0 && done < all ? `, about ${duration((passed / done) * (all - done))} left` : '';
  const counts = `${ring}: ${done} of ${all} homes done, ${broken} quarantined`;
  return { text: `${counts}, ${duration(passed)}${left}`, news: counts };
}

function runText({ operation, version, rings, named }: RunView): string {
  const rows = rings.map(({ ring, pending, working, done, quarantined, pinned, moving, gone }) => [
    ring,
    ...[pending, working, done, quarantined, pinned, moving, gone].map(String),
  ]);
  const parts = [
    `Run ${operation.id} to ${version}: ${operation.state}${operation.reason ? `, ${operation.reason}` : ''}`,
    rings.length === 0
      ? operation.state === 'done'
        ? 'Every home was there already.'
        : 'No home has been looked up yet.'
      : table(['ring', 'pending', 'working', 'done', 'quarantined', 'pinned', 'moving', 'gone'], rows),
  ];
  if (named.length > 0)
    parts.push(
      table(
        ['tenant', 'ring', 'state', 'reason'],
        named.map(({ slug, ring, state, reason }) => [slug ?? '(shared tables)', ring, state, reason]),
      ),
    );
  return parts.join('\n');
}

export function planText({ version, total, targets, files, rehearsals }: PlanView): string {
  if (total === 0) return `Every home is at ${version}, or beyond it. Nothing to do.`;
  const rows = targets.map(({ tenant, ring, from, to, pinned, moving, ahead }) => [
    tenant ?? '(shared tables)',
    ring,
    from ?? '',
    moving ? `waits: ${moving}` : (pinned ?? ahead ?? to),
  ]);
  return [
    `To ${version}: ${total} ${total === 1 ? 'home' : 'homes'}${total > targets.length ? `, the first ${targets.length} of them` : ''}`,
    table(['tenant', 'ring', 'from', 'to'], rows),
    ...locksText(files),
    ...rehearsals.map(({ strategy, outcome, reason }) =>
      outcome === 'untried'
        ? `Not tried in an empty home of the strategy ${strategy}: ${reason}. The run tries it at its start.`
        : `An empty home of the strategy ${strategy} ${outcome === 'taken' ? 'takes' : 'refuses'} the files.`,
    ),
  ].join('\n');
}

/** More statements than these nobody reads. */
const statementsShown = 50;

/** Each statement with its lock; of many, those that somebody waits for. */
function locksText(files: PlanView['files']): string[] {
  const all = files.flatMap(({ file, statements }) => statements.map((each) => ({ file, ...each })));
  if (all.length === 0) return [];
  const felt = all.length <= statementsShown ? all : all.filter(({ blocks }) => blocks !== 'nobody');
  const shown = felt.slice(0, statementsShown);
  const rows = shown.map(({ file, statement, lock, blocks, note }, index) => [
    file === shown[index - 1]?.file ? '' : file,
    statement,
    lock,
    note ? `${blocks}; ${note}` : blocks,
  ]);
  return [
    ...(rows.length > 0 ? [table(['file', 'statement', 'lock', 'blocks'], rows)] : []),
    ...(shown.length < all.length
      ? [
          `Of ${all.length} statements in ${files.length} ${files.length === 1 ? 'file' : 'files'} ${felt.length} block somebody${shown.length < felt.length ? `, the first ${shown.length} of them above` : ''}; --json has all.`,
        ]
      : []),
  ];
}
