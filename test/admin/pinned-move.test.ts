import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type AdminWorld, code, startAdmin } from './support.ts';

/** Shared tables are all at one version: a pin and a move into them don't go together, whichever comes first. */
let admin: AdminWorld;
beforeAll(async () => {
  admin = await startAdmin();
});
afterAll(() => admin?.world.close());

const path = '/tenants/schema-a';
const pin = () => admin.ask('POST', `${path}/pin`, { version: '9000-notes', reason: 'audit', days: 3 });
const move = (to = 'rls') => admin.ask('POST', `${path}/move`, { to });

/** What is asked for while `statement` is done and not committed: it sees nothing of it yet. */
async function during(statement: string, ask: typeof pin) {
  let asked: ReturnType<typeof ask> | undefined;
  await admin.world.asProvisioner('catalog', async (first) => {
    await first.query('begin');
    await first.query(statement, [admin.world.tenants.schema.a.id]);
    asked = ask();
    await setTimeout(300);
    await first.query('commit');
  });
  return code(await asked!);
}

it('begins no move into shared tables of one that is pinned, also one that is just being pinned', async () => {
  const pinned = `with held as (select tenant_id from catalog.tenants where tenant_id = $1 for update)
    insert into catalog.migration_pins (tenant_id, version, reason, until)
    select tenant_id, '9000-notes', 'audit', now() + interval '1 day' from held`;
  expect(await during(pinned, move)).toEqual([409, 'move_refused']);
  const refused = await move();
  expect(code(refused)).toEqual([409, 'move_refused']);
  expect(refused.body.error.message).toContain('npm run tenants -- migrate unpin schema-a');
  expect((await admin.ask('POST', `${path}/unpin`, {})).status).toBe(200);
});

it('pins nobody whose move into shared tables is just beginning', async () => {
  const begun = `insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest)
    values (gen_random_uuid(), 'move', $1, '{"from": "schema", "strategy": "rls"}', 'planned')`;
  expect(await during(begun, pin)).toEqual([409, 'operation_running']);
  await admin.world.asProvisioner('catalog', (catalog) =>
    catalog.query("update catalog.operations set state = 'cancelled' where request_digest = 'planned'"),
  );
});

it('takes a pin along into tables of its own', async () => {
  expect((await pin()).status).toBe(200);
  expect((await move('database')).status).toBe(202);
});
