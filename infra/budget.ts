import { connectionBudget, type Inequality } from '../functions/lib/health/budget.ts';
import { type FunctionRow, functions } from './functions.ts';
import type { Settings } from './settings.ts';

/** Environments of one function where nothing is reserved: AWS's default for all functions of an account and region. */
const ACCOUNT_CONCURRENCY = 1_000;

/** The connection budget of a deployment. */
export function budgetOf({ concurrency, cluster, dedicated }: Settings): readonly Inequality[] {
  const rows: readonly FunctionRow[] = functions;
  const control = rows.flatMap(({ name, connections }) =>
    connections === undefined ? [] : [[name, connections] as const],
  );
  return connectionBudget({
    environments: concurrency.reserved ?? ACCOUNT_CONCURRENCY,
    connectionsPerEnvironment: concurrency.connections,
    shared: {
      maxConnections: cluster.maxConnections,
      proxyPercent: cluster.proxyPercent,
      activeSchemaTenants: concurrency.activeSchemaTenants,
      control: Object.fromEntries(control),
    },
    dedicated: { maxConnections: dedicated.maxConnections },
  });
}
