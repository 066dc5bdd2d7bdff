import { expect, it } from 'vitest';
import { QueryError, RetryableError, TenantryError } from '../../../functions/lib/errors.ts';
import { probeTool } from '../../../functions/lib/mcp/probe.ts';

/** As the database answers the row that names another tenant. */
const probe = (answer: () => Promise<unknown>) => {
  const tx = { query: async () => ({ rows: [{ tenant_id: 'me', marker: 'm' }] }) };
  const db = { transaction: (work: (tx: unknown) => unknown) => work(tx), query: answer };
  return Promise.resolve(probeTool.run({ marker: 'm' }, { db, tenant: { id: 'me' } } as never));
};
const refused = (sqlstate: string) => () => Promise.reject(new QueryError(sqlstate, undefined, undefined));

it.each(['42501', '23514'])('takes %s for the wall', async (sqlstate) => {
  expect(await probe(refused(sqlstate))).toEqual({ tenant: 'me', strategyHolds: true });
});

it('says that the row could be written only when it was', async () => {
  await expect(probe(async () => ({ rows: [] }))).rejects.toThrow("Another tenant's row could be written.");
});

it.each([
  new RetryableError('busy', 'All database connections are in use.'),
  new TenantryError('deadline_exceeded', 'late'),
  new TenantryError('outcome_unknown', 'lost'),
  new QueryError('53300', undefined, undefined),
])('passes on what is neither: $code', async (error) => {
  await expect(probe(() => Promise.reject(error))).rejects.toBe(error);
});
