import type { ConnectionPools } from '../database/pools.ts';
import { metricNames } from './metrics.ts';

/** How often one environment tells, ms: a line for each call would cost more than it says. */
const everyMs = 60_000;

/**
 * Tells this environment's pool figures, once a minute while it is called: a frozen one runs no timers. Never rejects: a
 * call that was answered must not fail for it.
 */
export function createPoolTeller(
  pools: Pick<ConnectionPools, 'gauges'>,
  clock = Date.now,
): () => Promise<void> {
  let due = clock() + everyMs;
  let told = 0;
  return async () => {
    if (clock() < due) return;
    due = clock() + everyMs;
    const { connections, waits } = pools.gauges();
    const { poolConnections, poolWaits } = metricNames;
    try {
      // Loaded here: what a cold start does not need, it does not wait for.
      const { publish } = await import('./publish.ts');
      publish({ [poolConnections]: connections, [poolWaits]: waits - told });
      told = waits;
    } catch {
      // The next minute's will do.
    }
  };
}
