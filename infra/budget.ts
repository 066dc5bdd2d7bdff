import { type ConnectionFacts, connectionBudget, type Inequality } from '../functions/lib/health/budget.ts';
import { type FunctionRow, functions } from './functions.ts';
import type { Settings } from './settings.ts';

/** Environments of one function where nothing is reserved: AWS's default for all functions of an account and region. */
const ACCOUNT_CONCURRENCY = 1_000;

/** The connection budget of a deployment. */
export const budgetOf = (settings: Settings): readonly Inequality[] =>
  connectionBudget(connectionFacts(settings));

/** What it is computed from; `npm run tenants -- health` computes the same from it. */
export function connectionFacts({ concurrency, cluster, dedicated }: Settings): ConnectionFacts {
  const rows: readonly FunctionRow[] = functions;
  const control = rows.flatMap(({ name, connections }) =>
    connections === undefined ? [] : [[name, connections] as const],
  );
  return {
    environments: concurrency.reserved ?? ACCOUNT_CONCURRENCY,
    connectionsPerEnvironment: concurrency.connections,
    shared: {
      maxConnections: cluster.maxConnections,
      proxyPercent: cluster.proxyPercent,
      activeSchemaTenants: concurrency.activeSchemaTenants,
      control: Object.fromEntries(control),
    },
    dedicated: { maxConnections: dedicated.maxConnections },
  };
}

/** The sum and the remedies of every inequality that does not hold, for a person; undefined when all do. */
export function overBudget(budget: readonly Inequality[]): string | undefined {
  const broken = budget.filter(({ holds }) => !holds);
  if (broken.length === 0) return undefined;
  return broken.map(explain).join('\n');
}

function explain({ name, lines, sum, limit, limitIs, remedies }: Inequality): string {
  const rows = lines.map(({ what, connections }) => `  ${String(connections).padStart(7)}  ${what}`);
  return [
    `More connections than there are (${name}):`,
    ...rows,
    `  ${String(sum).padStart(7)}  together, of ${limit}: ${limitIs}`,
    `  Choose: ${remedies.join('; or ')}.`,
  ].join('\n');
}
