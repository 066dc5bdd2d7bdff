import { afterAll, beforeAll, expect, it } from 'vitest';
import { runMove } from '../lib/lifecycle/move.support.ts';
import { type AdminWorld, startAdmin } from './support.ts';

let it_: AdminWorld;
beforeAll(async () => {
  it_ = await startAdmin();
});
afterAll(() => it_?.world.close());
const ask: AdminWorld['ask'] = (...request) => it_.ask(...request);

it.each([
  ['cancelled', ['npm run tenants -- move schema-b --to database --placement shared-cluster']],
  ['completed', []],
])('of a move that failed and is %s, says what goes on', async (phase, again) => {
  const asked = { to: 'database', placement: 'shared-cluster' };
  const { id } = (await ask('POST', '/tenants/schema-b/move', asked)).body.operation;
  await ask('POST', '/tenants/schema-b/move/cancel', {});
  await runMove(it_.world, id);
  await it_.world.asProvisioner('catalog', async (catalog) => {
    const failed =
      "update catalog.operations set state = 'failed', failed_step = 'land', reason = 'No room.' where operation_id = $1";
    await catalog.query(failed, [id]);
    await catalog.query('update catalog.moves set phase = $2 where operation_id = $1', [id, phase]);
  });
  const why = async () => (await ask('GET', '/tenants/schema-b/why')).body;
  const told = {
    why: 'Its agents are served. Its last move failed at land: No room.',
    run: ['npm run tenants -- move status schema-b', ...again, `npm run tenants -- operations cancel ${id}`],
  };
  expect(await why()).toMatchObject(told);
  // It is what the watch names, and sends here for, whatever has gone well since.
  await it_.world.asProvisioner('catalog', (catalog) =>
    catalog.query(
      "insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest, state) select gen_random_uuid(), 'export', tenant_id, '{}', 'x', 'done' from catalog.tenants where slug = 'schema-b'",
    ),
  );
  expect(await why()).toMatchObject(told);
  await ask('POST', `/operations/${id}/cancel`, {});
  expect(await why()).toMatchObject({ why: 'Its agents are served.', run: [] });
});
