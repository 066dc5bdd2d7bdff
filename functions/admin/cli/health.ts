import type { Command } from 'commander';
import type { HealthView, TenantHealthView } from '../../lib/admin/health.ts';
import type { AdminClient } from './connection.ts';
import { card, duration, type Output, table } from './output.ts';

/** Exit code 1 when a tenant is at risk, or when nobody watches: for scripts. */
export function healthCommand(program: Command, client: AdminClient, output: () => Output): void {
  program
    .command('health [slug]')
    .description('how the canary finds the whole, or how one tenant is now')
    .action(async (slug?: string) => {
      if (slug !== undefined) {
        const { body } = await client.get<TenantHealthView>(`/health?tenant=${encodeURIComponent(slug)}`);
        return output().answer(body, tenantCard(body));
      }
      const { body } = await client.get<HealthView>('/health');
      if (body.state === 'broken' || body.state === 'down') process.exitCode = 1;
      const findings = body.report?.findings ?? [];
      const rows = findings.map(({ check, strategies, object, finding, remedy }) => [
        check,
        strategies.join(' '),
        `${object} ${finding}`,
        remedy,
      ]);
      const wrong = table(['check', 'strategy', 'what is wrong', 'what to do'], rows);
      output().answer(body, findings.length === 0 ? overview(body) : `${overview(body)}\n${wrong}`);
      const unshown = (body.report?.found ?? 0) - findings.length;
      if (unshown > 0) output().note(`And ${unshown} more.`);
    });
}

function overview({ state, ageSeconds, report, connectionBudget }: HealthView): string {
  if (report === null || ageSeconds === null) return 'down: the canary has not finished a run yet.';
  return card({
    state,
    'last run': `${duration(ageSeconds * 1_000)} ago, ${report.ms} ms`,
    strategies: report.strategies.join(', ') || 'no tenant yet',
    checks: `${Object.keys(report.checks).length}, ${Object.values(report.checks).filter((verdict) => verdict === 'red').length} red`,
    'homes looked at': report.homes,
    'session locks': report.sessionLocks,
    'operations failed': report.operationsFailed,
    'homes quarantined': report.homesQuarantined,
    ...Object.fromEntries(
      (connectionBudget ?? []).map(({ name, sum, limit, holds, remedies }) => [
        name,
        `${sum} of ${limit} connections${holds ? '' : `: too many; ${remedies.join('; or ')}`}`,
      ]),
    ),
  });
}

const tenantCard = ({ connection_budget: budget, state, ...health }: TenantHealthView) =>
  card({
    ...health,
    'the whole': state,
    connection_budget:
      budget &&
      `${budget.connections} of ${budget.max_connections} on its server; its login may have ${budget.login_limit < 0 ? 'any number' : budget.login_limit}`,
  });
