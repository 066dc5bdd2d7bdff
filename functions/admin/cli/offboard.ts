import { createInterface } from 'node:readline/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { moment } from '../../lib/admin/moment.ts';
import type { OperationWithSteps } from '../../lib/admin/operations.ts';
import type { TenantView } from '../../lib/admin/tenants.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { askAgain, followOperation, requireDone } from './follow.ts';
import { card, type Output } from './output.ts';
import { tenantPath } from './tenants.ts';

type Left = { tenant: TenantView; operation: OperationWithSteps };

export function offboardCommand(program: Command, client: AdminClient, output: () => Output): void {
  program
    .command('offboard <slug>')
    .description('close a tenant at once, and remove all of it after its grace period; again, to go on')
    .option('--grace <time>', 'for how long `resume` undoes it: 30m, 12h, 7d or 0', seconds)
    .option('--no-export', 'remove its rows without writing them anywhere first')
    .option('--idempotency-key <key>', 'the same key and request: the same answer')
    .option('--wait', 'until it is gone, or has failed')
    .option('--yes', 'without asking')
    .action(async (slug: string, { grace, export: isExported, idempotencyKey, wait, yes }) => {
      if (!yes) await confirm(slug);
      const body = {
        ...(grace !== undefined && { graceSeconds: grace }),
        ...(!isExported && { export: false }),
      };
      const { body: left } = await client.post<Left>(tenantPath(slug, '/offboard'), body, idempotencyKey);
      const { id, state } = left.operation;
      const operation =
        wait && state === 'running' ? await followOperation(client, output(), id) : left.operation;
      const tenant =
        operation === left.operation
          ? left.tenant
          : // The one that has gone: another canary has the slug of one.
            await askAgain<TenantView>(client, output(), tenantPath(operation.tenant ?? slug));
      output().answer({ tenant, operation }, leftCard(tenant, operation));
      requireDone(operation, `The tenant stays closed. To go on: npm run tenants -- offboard ${slug}`);
      if (operation.state === 'running')
        output().note(
          tenant.graceEndsAt !== null && Date.parse(tenant.graceEndsAt) > Date.now()
            ? `Every call is refused. Until ${moment(tenant.graceEndsAt)} this undoes it, and its agents are served again: npm run tenants -- resume ${slug}`
            : 'Its removal has begun: npm run tenants -- operations --watch',
        );
    });
}

/** @throws CommandFailure unless a person has typed the tenant's name */
async function confirm(slug: string): Promise<void> {
  const usage = new CommandFailure(2, 'not_confirmed', 'Offboarding removes a tenant for good: say --yes.');
  if (!process.stdin.isTTY || !process.stderr.isTTY) throw usage;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(
    `This removes ${slug} for good: rows, home, secrets and keys. Type its name to go on: `,
  );
  terminal.close();
  if (answer.trim() !== slug) throw usage;
}

const units: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 };

function seconds(text: string): number {
  const [, number, unit] = /^(\d{1,8})([smhd]?)$/.exec(text) ?? [];
  if (number === undefined || (unit === '' && number !== '0'))
    throw new InvalidArgumentError('Write it as 30m, 12h, 7d or 0.');
  return Number(number) * (units[unit!] ?? 0);
}

function leftCard(tenant: TenantView, { state, step, result, reason }: OperationWithSteps): string {
  const { url, finalSnapshot, checked, left } = result as {
    url?: string;
    finalSnapshot?: string;
    checked?: Record<string, number>;
    left?: string[];
  };
  const looked = Object.entries(checked ?? {}).map(([kind, number]) => `${number} ${kind}`);
  return card({
    tenant: tenant.slug,
    id: tenant.id,
    status: tenant.status,
    offboarding: `${state}${step ? `, ${step}` : ''}`,
    'can be undone until': tenant.graceEndsAt && moment(tenant.graceEndsAt),
    exported: url,
    'final snapshot': finalSnapshot,
    'looked at': looked.length > 0 ? looked.join(', ') : undefined,
    'still there': left && (left.length > 0 ? left.join(', ') : 'nothing'),
    reason,
  });
}
