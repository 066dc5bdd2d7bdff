import type { APIGatewayProxyResult } from 'aws-lambda';
import { withConnection } from '../database/connect.ts';
import type { Endpoint } from '../database/types.ts';
import type { HealthState } from './findings.ts';
import { staleAfterSeconds } from './record.ts';

/** How long an answer is given again without a look, ms: the public may ask as often as it likes. */
const cachedMs = 10_000;

/** States in which a tenant is at risk, or in which nobody knows. */
const failing: ReadonlySet<HealthState> = new Set(['broken', 'down']);

/** The last run's word and its age, s; undefined when there was none. The question is also the ping. */
export type Ask = () => Promise<{ readonly state: HealthState; readonly ageSeconds: number } | undefined>;

/** Asks the catalog as the login that may execute this and look up routes, and nothing else. */
export const askCatalog =
  (reader: Endpoint): Ask =>
  () =>
    withConnection(reader, async (connection) => {
      const { rows } = await connection.query('select state, age_seconds from catalog.health()', []);
      return rows[0] && { state: rows[0].state, ageSeconds: rows[0].age_seconds };
    });

/**
 * `GET /health`: one word for everybody. Not 200 when a tenant is at risk, when the catalog does not answer, or when
 * nobody has watched for three minutes. `onFault`: why the catalog could not be asked.
 */
export function createHealthAnswer(
  ask: Ask,
  onFault: (error: unknown) => void,
  clock = Date.now,
): () => Promise<APIGatewayProxyResult> {
  let last: { readonly answer: Promise<HealthState>; readonly until: number } | undefined;

  async function look(): Promise<HealthState> {
    try {
      const record = await ask();
      return record === undefined || record.ageSeconds > staleAfterSeconds ? 'down' : record.state;
    } catch (error) {
      onFault(error);
      return 'down';
    }
  }

  return async () => {
    if (last === undefined || last.until <= clock()) last = { answer: look(), until: clock() + cachedMs };
    const status = await last.answer;
    return {
      statusCode: failing.has(status) ? 503 : 200,
      headers: { 'content-type': 'application/json', 'cache-control': 'no-store' },
      body: JSON.stringify({ status }),
    };
  };
}
