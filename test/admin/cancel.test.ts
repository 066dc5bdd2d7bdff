import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { requireWanted } from '../../functions/lib/lifecycle/cancel.ts';
import { endOperation } from '../../functions/lib/lifecycle/operations.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

/** What an operator ends that is under way. */
let admin: AdminWorld;
beforeAll(async () => {
  admin = await startAdmin();
});
afterAll(() => admin?.world.close());

const cancel = (id: string) => admin.ask('POST', `/operations/${id}/cancel`, {});

it('asks an export to end, and says so to whom it is in the way of', async () => {
  const begun = await admin.ask('POST', '/tenants/rls-a/export', { to: 's3://exports/here' });
  const { id } = begun.body.operation;
  const refused = await admin.ask('POST', '/tenants/rls-a/offboard', {});
  expect(code(refused)).toEqual([409, 'operation_running']);
  expect(refused.body.error.message).toContain(`\`npm run tenants -- operations cancel ${id}\``);
  for (const _ of ['once', 'again'])
    expect(await cancel(id)).toMatchObject({ status: 202, body: { id, state: 'running' } });
  await admin.world.asProvisioner('catalog', async (catalog) => {
    await expect(requireWanted(catalog, id)).rejects.toMatchObject({ code: 'operation_cancelled' });
    await endOperation(catalog, id, { state: 'cancelled', reason: 'planned' });
  });
  const late = await cancel(id);
  expect([...code(late), late.body.error.message]).toEqual([
    409,
    'wrong_status',
    'This export is cancelled already.',
  ]);
});

it('names what ends an operation of another kind', async () => {
  const { id } = (await admin.ask('POST', '/tenants/rls-b/move', { to: 'schema' })).body.operation;
  const refused = await cancel(id);
  expect(code(refused)).toEqual([409, 'wrong_status']);
  expect(refused.body.error.message).toContain('For this one: npm run tenants -- move status rls-b');
  expect(code(await cancel(randomUUID()))).toEqual([404, 'unknown_operation']);
});
