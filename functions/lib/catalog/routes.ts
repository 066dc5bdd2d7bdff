import { LRUCache } from 'lru-cache';
import { type Principal, productAuth } from '../auth/principal.ts';
import { ConnectFailure, StepFailure, Stopped } from '../database/failure.ts';
import type { ConnectionPools } from '../database/pools.ts';
import { toStatement } from '../database/statement.ts';
import type { Endpoint, Row } from '../database/types.ts';
import { RetryableError } from '../errors.ts';
import { resolveRoute } from './resolve.ts';
import type { Route } from './route.ts';

/** A known route is used this long without asking again, ms. Being stale is safe: the home refuses an older epoch. */
const FRESH_MS = 30_000;
/** While the catalog is away, a known route is used on, and the catalog asked again after this time, ms. */
const AWAY_MS = 5_000;
/** How long the catalog may take to answer, ms. */
const ANSWER_MS = 3_000;
/** Routes remembered, of active principals. */
const REMEMBERED = 10_000;

export interface Routes {
  /**
   * The home of a principal's tenant: from memory within 30 s, and beyond while the catalog is away.
   * `refresh`: the home refused the remembered route.
   * @throws TenantryError `tenant_not_served`, `tenant_suspended`, `key_revoked`; RetryableError `unavailable`, `busy`
   */
  resolve(principal: Principal, refresh?: boolean): Promise<Route>;
}

export function createRoutes(endpoint: Endpoint, pools: ConnectionPools, clock = Date.now): Routes {
  const known = new LRUCache<string, { route: Route; until: number }>({ max: REMEMBERED });
  const asking = new Map<string, Promise<Route>>();

  async function ask(key: string, principal: Principal, refresh: boolean): Promise<Route> {
    try {
      const route = await resolveRoute((text, values) => query(endpoint, pools, text, values), principal);
      known.set(key, { route, until: clock() + FRESH_MS });
      return route;
    } catch (error) {
      const last = known.get(key);
      if (!(error instanceof RetryableError)) known.delete(key);
      else if (last !== undefined && !refresh) {
        known.set(key, { route: last.route, until: clock() + AWAY_MS });
        return last.route;
      }
      throw error;
    }
  }

  return {
    async resolve(principal, refresh = false) {
      const key = JSON.stringify([principal.auth, principal.tenant]);
      const remembered = known.get(key);
      // The product's own call tries a home, and a minute ago that may have been another.
      const mustAsk = refresh || principal.auth === productAuth;
      if (!mustAsk && remembered !== undefined && remembered.until > clock()) return remembered.route;
      // A question that began before the home refused may still be answered with the home that refused.
      const question = `${mustAsk} ${key}`;
      let answer = asking.get(question);
      if (answer === undefined) {
        answer = ask(key, principal, mustAsk).finally(() => asking.delete(question));
        asking.set(question, answer);
      }
      return answer;
    },
  };
}

async function query(
  endpoint: Endpoint,
  pools: ConnectionPools,
  text: string,
  values: readonly unknown[],
): Promise<Row[]> {
  const stop = AbortSignal.timeout(ANSWER_MS);
  const lease = await pools.acquire(endpoint, stop).catch(unavailable);
  try {
    const part = { step: 'statement', statement: toStatement(text, values) } as const;
    const answer = await lease.connection.run(
      [part],
      { maxRows: 1, maxBytes: 64 * 1024, cutOff: true },
      stop,
    );
    return answer.result.rows;
  } catch (error) {
    lease.lost();
    return unavailable(error);
  } finally {
    lease.release();
  }
}

function unavailable(cause: unknown): never {
  if (cause instanceof StepFailure || cause instanceof ConnectFailure || cause instanceof Stopped)
    throw new RetryableError(
      'unavailable',
      'The service cannot look up its tenants right now. Try again.',
      2,
      { cause },
    );
  throw cause;
}
