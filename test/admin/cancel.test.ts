import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditOperations } from '../../functions/lib/health/upkeep.ts';
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

describe('what has failed, when an operator leaves it at that,', () => {
  const inCatalog = (text: string, values: unknown[] = []) =>
    admin.world.asProvisioner('catalog', (catalog) => catalog.query(text, values));
  const failed = async (kind: string, tenant: string | null) => {
    const id = randomUUID();
    await inCatalog(
      `insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest, state, failed_step, reason)
       values ($1, $2, $3, '{"strategy": "schema"}', 'x', 'failed', 'start', 'planned')`,
      [id, kind, tenant],
    );
    return id;
  };
  const told = async () =>
    (await admin.world.asProvisioner('catalog', auditOperations)).findings.map(({ object }) => object);

  it.each(['batch', 'export', 'import', 'move'])('a %s: the watch tells of it no longer', async (kind) => {
    const { id: tenant, slug } = admin.world.tenants.database.a;
    const id = await failed(kind, kind === 'batch' ? null : tenant);
    const object = `${kind} ${kind === 'batch' ? id : slug}`;
    expect(await told()).toContain(object);
    const { body } = await cancel(id);
    expect(body).toMatchObject({
      id,
      state: 'cancelled',
      reason: 'An operator has left it at that. planned',
    });
    expect(await told()).not.toContain(object);
    expect(code(await cancel(id))).toEqual([409, 'wrong_status']);
  });

  it('but not where something is to be done: a run, a tenant in between, a home that a move has left', async () => {
    const { a, b } = admin.world.tenants.database;
    const move = await failed('move', a.id);
    await inCatalog(
      `insert into catalog.moves (operation_id, tenant_id, source_home, target_home, window_seconds, phase) values ($1, $2, $3, $4, 0, 'cancelled')`,
      [move, a.id, a.home.homeId, b.home.homeId],
    );
    for (const [id, remedy] of [
      [move, 'move status database-a'],
      [await failed('migrate', null), 'migrate resume'],
      [await failed('offboard', a.id), 'why database-a'],
    ] as const) {
      const refused = await cancel(id);
      expect(code(refused)).toEqual([409, 'wrong_status']);
      expect(refused.body.error.message).toContain(`npm run tenants -- ${remedy}`);
    }
  });
});
