import { type Command, Option } from 'commander';
import { moment } from '../../lib/admin/moment.ts';
import type { OperationWithSteps } from '../../lib/admin/operations.ts';
import type { TenantSummary, TenantView } from '../../lib/admin/tenants.ts';
import type { Why } from '../../lib/admin/why.ts';
import { placements, strategies, tiers } from '../../lib/tenant/tenant.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { askAgain, followOperation, requireDone, stepsText, whatNext } from './follow.ts';
import { card, type Output, table } from './output.ts';

type Made = { tenant: TenantView; operation: OperationWithSteps };

export const tenantPath = (slug: string, rest = '') => `/tenants/${encodeURIComponent(slug)}${rest}`;

export function tenantCommands(program: Command, client: AdminClient, output: () => Output): void {
  program
    .command('create <slug>')
    .description('create a tenant; again, to go on with what failed or was interrupted')
    .addOption(new Option('--tier <tier>', 'its commercial package').choices(tiers).makeOptionMandatory())
    .addOption(new Option('--strategy <strategy>', 'instead of the tier’s').choices(strategies))
    .addOption(new Option('--placement <placement>', 'of a database of its own').choices(placements))
    .option('--external-id <organisation>', 'what its identity provider calls it')
    .option('--issuer <url>', 'the identity provider; needed when there are several')
    .option('--idempotency-key <key>', 'the same key and request: the same answer')
    .option('--wait', 'until it is active, or has failed')
    .action(async (slug: string, { wait, idempotencyKey, ...options }) => {
      const body = { slug, ...options };
      const made = await client.post<Made>('/tenants', body, idempotencyKey, [500]);
      if (made.body.operation === undefined) throw internal(made.body);
      const { id, state } = made.body.operation;
      const operation =
        wait && state === 'running' ? await followOperation(client, output(), id) : made.body.operation;
      const tenant =
        operation === made.body.operation
          ? made.body.tenant
          : await askAgain<TenantView>(client, output(), tenantPath(slug));
      output().answer({ tenant, operation }, tenantCard(tenant));
      requireDone(operation, whatNext(operation));
      if (operation.state === 'running')
        output().note('It is on its way: npm run tenants -- operations --watch');
    });

  program
    .command('list')
    .description('all tenants')
    .option('--canaries', 'with the product’s own, which try the walls')
    .action(async ({ canaries }) => {
      const tenants: TenantSummary[] = [];
      for (let after: string | null = ''; after !== null; ) {
        const page: { tenants: TenantSummary[]; next: string | null } = (
          await client.get<{ tenants: TenantSummary[]; next: string | null }>(
            `/tenants?after=${after}${canaries ? '&canaries=true' : ''}`,
          )
        ).body;
        tenants.push(...page.tenants);
        after = page.next;
      }
      const rows = tenants.map(({ slug, tier, strategy, status, createdAt, id }) => [
        slug,
        tier,
        strategy,
        status,
        moment(createdAt),
        id,
      ]);
      output().answer(tenants, table(['tenant', 'tier', 'strategy', 'status', 'created', 'id'], rows));
    });

  program
    .command('show <slug>')
    .description('one tenant, its home and its last operation')
    .action(async (slug: string) => {
      const { body } = await client.get<TenantView>(tenantPath(slug));
      output().answer(body, tenantCard(body));
    });

  program
    .command('why <slug>')
    .description('why a tenant is not active, and what to run')
    .action(async (slug: string) => {
      const { body } = await client.get<Why>(tenantPath(slug, '/why'));
      const commands = body.run.map((command) => `\n  ${command}`);
      const isServed = body.status === 'active' || body.status === 'suspended';
      const steps = body.operation === null || isServed ? [] : [`\n${stepsText(body.operation)}`];
      output().answer(body, [`${slug} is ${body.status}. ${body.why}`, ...commands, ...steps].join('\n'));
    });

  for (const [verb, does] of [
    ['suspend', 'refuse every call of a tenant, from the next one on'],
    ['resume', 'undo suspend, or an offboarding in its grace period'],
  ] as const)
    program
      .command(`${verb} <slug>`)
      .description(does)
      .action(async (slug: string) => {
        const { body } = await client.post<{ result: 'done' | 'pending'; tenant: TenantView }>(
          tenantPath(slug, `/${verb}`),
          {},
        );
        output().answer(body, `${slug} is ${body.tenant.status}.`);
        const { operation } = body.tenant;
        if (verb === 'suspend' && operation?.kind === 'move' && operation.state === 'running')
          output().note(`What becomes of its move: npm run tenants -- move status ${slug}`);
        if (body.result === 'pending')
          throw new CommandFailure(
            1,
            'pending',
            `Its home can't be reached: warm environments follow within 30 s. Run it again to be sure.`,
          );
      });
}

function internal(body: object): CommandFailure {
  const { error } = body as { error?: { code: string; message: string } };
  return new CommandFailure(1, error?.code ?? 'internal', error?.message ?? 'The admin API failed.');
}

function tenantCard({ home, operation, ...tenant }: TenantView): string {
  return card({
    tenant: tenant.slug,
    id: tenant.id,
    status: tenant.status,
    tier: tenant.tier,
    strategy: tenant.strategy,
    issuer: tenant.issuer,
    'external id': tenant.externalId,
    home:
      home && `${home.schema} in ${home.database}, ${home.cluster.kind} cluster ${home.host}:${home.port}`,
    'home state': home && `${home.state}, epoch ${home.epoch}`,
    'schema version': tenant.schemaVersion,
    operation:
      operation && `${operation.kind} ${operation.state}${operation.step ? `, ${operation.step}` : ''}`,
    reason: operation?.reason,
    'can be undone until': tenant.graceEndsAt && moment(tenant.graceEndsAt),
    created: moment(tenant.createdAt),
  });
}
