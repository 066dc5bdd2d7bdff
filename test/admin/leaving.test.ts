import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { openConnection } from '../../functions/lib/database/connect.ts';
import type { World } from '../support/world.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

/** What takes a tenant's rows somewhere, or the tenant away. */
let world: World;
let admin: AdminWorld['admin'];
let started: AdminWorld['started'];
let ask: AdminWorld['ask'];
beforeAll(async () => {
  ({ world, admin, started, ask } = await startAdmin());
});
afterAll(() => world?.close());

it('an offboarding closes at once, and hands the rest to the state machine under the operation’s name', async () => {
  const { slug, id } = await world.addTenant('schema');
  const first = await ask(
    'POST',
    `/tenants/${slug}/offboard`,
    { graceSeconds: 60 },
    { 'Idempotency-Key': 'leave-1' },
  );
  expect(first).toMatchObject({
    status: 202,
    body: { tenant: { status: 'offboarding', home: { state: 'suspended' }, removalBegunAt: null } },
  });
  expect(started.at(-1)).toEqual({
    machine: admin.settings.offboardMachine,
    name: first.body.operation.id,
    input: { operation: first.body.operation.id, input: { graceSeconds: 60 } },
  });
  // The wait begins when the tenant is closed.
  const begun = Date.parse(first.body.operation.startedAt);
  expect(Date.parse(first.body.tenant.graceEndsAt)).toBe(begun + 60_000);
  const closed = new Date(begun + 7_000);
  await world.asProvisioner('catalog', (catalog) =>
    catalog.query(
      `insert into catalog.operation_steps (operation_id, step, attempt, outcome, started_at, finished_at) values ($1, 'suspend', 1, 'done', $2, $2)`,
      [first.body.operation.id, closed],
    ),
  );
  const { body: why } = await ask('GET', `/tenants/${slug}/why`);
  const until = new Date(begun + 67_000).toISOString();
  expect(why.graceEndsAt).toBe(until);
  expect(why.why).toContain(
    `until ${until.slice(0, 19).replace('T', ' ')}Z \`resume\` undoes it, and its agents are served again`,
  );
  const access = world.access();
  const principal = { tenant: id, principal: 'agent', scopes: '', auth: 'oidc:http://127.0.0.1/issuer' };
  await expect(access.resolve(principal)).rejects.toMatchObject({ code: 'tenant_suspended' });
  const again = (body: object, headers = {}) => ask('POST', `/tenants/${slug}/offboard`, body, headers);
  expect((await again({ graceSeconds: 60 })).body.operation.id).toBe(first.body.operation.id);
  expect(code(await again({ graceSeconds: 61 }))).toEqual([409, 'operation_running']);
  expect(code(await again({ graceSeconds: 61 }, { 'Idempotency-Key': 'leave-1' }))).toEqual([
    409,
    'idempotency_conflict',
  ]);
  expect((await ask('POST', `/tenants/${slug}/resume`)).body.tenant).toMatchObject({
    status: 'active',
    graceEndsAt: null,
  });
  // What the key began is undone and stays so.
  expect((await again({ graceSeconds: 60 }, { 'Idempotency-Key': 'leave-1' })).body).toMatchObject({
    tenant: { status: 'active' },
    operation: { state: 'cancelled' },
  });
});

it('a tenant is shown while its home is being dropped', async () => {
  const { slug, home } = await world.addTenant('schema');
  const { connection: removal, close } = await openConnection(world.superuser(home.database));
  await removal.query(`begin; drop schema ${home.schema} cascade`);
  const shown = ask('GET', `/tenants/${slug}`);
  await vi.waitUntil(async () => {
    const { rows } = await removal.query('select from pg_locks where not granted');
    return rows.length > 0;
  });
  await removal.query('commit');
  expect(await shown).toMatchObject({ status: 200, body: { slug, schemaVersion: null } });
  await close();
});

it.each([
  ['a grace period of years', 'offboard', { graceSeconds: 400 * 86_400 }],
  ['a grace period that is none', 'offboard', { graceSeconds: -1 }],
  ['an export to this function’s own disk', 'export', { to: 'file:///tmp/x' }],
  ['an export to nowhere', 'export', { to: 's3://' }],
  ['an export to what no step could read', 'export', { to: 's3://exports/100%' }],
  ['an import from a name with a NUL', 'import', { from: 's3://exports/a%00b' }],
  ['an export to a web page', 'export', { to: 'https://example.com/' }],
  ['an import from a path', 'import', { from: '/etc/passwd' }],
])('refuses %s', async (_, verb, body) => {
  expect(code(await ask('POST', `/tenants/rls-a/${verb}`, body))).toEqual([400, 'invalid_request']);
});
