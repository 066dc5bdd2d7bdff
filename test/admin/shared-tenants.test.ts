import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { provisionShared } from '../../functions/lib/lifecycle/provision-shared.ts';
import { startProxy } from '../lib/database/support/proxy.ts';
import { limits } from '../support/world.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

let admin: AdminWorld;
beforeAll(async () => {
  admin = await startAdmin();
});
afterAll(() => admin?.world.close());

const create = (slug: string, key?: string, more: object = {}) =>
  admin.ask(
    'POST',
    '/tenants',
    { slug, tier: 'starter', ...more },
    key === undefined ? {} : { 'Idempotency-Key': key },
  );
const serves = async (id: string) => {
  const access = admin.world.access();
  const principal = { tenant: id, principal: 'p', scopes: '', auth: 'oidc:x' };
  const db = access.database(principal, await access.resolve(principal), limits('w'));
  await db.query("insert into notes (body) values ('first')");
  return (await db.query('select body from notes')).rows;
};
const inventory = async () =>
  admin.world.asProvisioner('catalog', async (catalog) => {
    const { rows } = await catalog.query(
      `select (select count(*) from catalog.tenants)::int as tenants, (select count(*) from catalog.homes)::int as homes,
              (select count(*) from catalog.operations)::int as operations, (select count(*) from catalog.operations where state <> 'done')::int as open`,
    );
    return rows[0]!;
  });

describe('a tenant on shared tables', () => {
  it('is made in at most four statements, each one round trip', async () => {
    const { plane } = admin.admin;
    const proxy = await startProxy(plane.catalog.port);
    const through = { ...plane, catalog: { ...plane.catalog, port: proxy.port } };
    await admin.world.asProvisioner('catalog', (catalog) =>
      catalog.query('update catalog.clusters set admin_port = $1', [proxy.port]),
    );
    try {
      Object.assign(admin.admin, { plane: through });
      expect((await create('counted')).status).toBe(201);
      // S: a statement with parameters. Q: a script; two are sent behind the answer's back, which make connections as new.
      expect(proxy.messages.replaceAll(/[^SQ]/g, '').length - 2).toBeLessThanOrEqual(4);
    } finally {
      Object.assign(admin.admin, { plane });
      await admin.world.asProvisioner('catalog', (catalog) =>
        catalog.query('update catalog.clusters set admin_port = $1', [plane.catalog.port]),
      );
      await proxy.close();
    }
  });

  it('is answered as it is shown, and serves', async () => {
    const { status, body } = await create('as-shown');
    expect(status).toBe(201);
    expect(body.tenant).toMatchObject({
      slug: 'as-shown',
      status: 'active',
      strategy: 'rls',
      home: { state: 'open' },
    });
    const shown = await admin.ask('GET', '/tenants/as-shown');
    // The shared tables' version is the catalog's word in one answer and the home's in the other.
    expect({ ...body.tenant, schemaVersion: null, operation: null }).toEqual({
      ...shown.body,
      schemaVersion: null,
      operation: null,
    });
    const { steps, ...operation } = (await admin.ask('GET', `/operations/${body.operation.id}`)).body;
    expect(body.operation).toEqual({ ...operation, steps: body.operation.steps });
    expect(steps).toEqual(body.operation.steps);
    expect(await serves(body.tenant.id)).toEqual([{ body: 'first' }]);
  });

  it('twenty at once: all there, each once', async () => {
    const before = await inventory();
    const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => create(`crowd-x${n}`)));
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(201));
    const after = await inventory();
    expect(after).toEqual({
      tenants: before.tenants + 20,
      homes: before.homes + 20,
      operations: before.operations + 20,
      open: before.open,
    });
  });

  it('twenty requests with one key, and twenty with none: one tenant, one answer', async () => {
    for (const key of ['one-key', undefined]) {
      const slug = key ?? 'no-key';
      const before = await inventory();
      const answers = await Promise.all(Array.from({ length: 20 }, () => create(slug, key)));
      const made = answers.filter(({ status }) => status === 201);
      // Without a key, whoever comes after the end, or just then, is told so.
      for (const answer of answers.filter(({ status }) => status !== 201)) {
        expect(key).toBeUndefined();
        expect(['slug_taken', 'operation_running']).toContain(code(answer)[1]);
      }
      expect(new Set(made.map(({ body }) => body.operation.id)).size).toBe(1);
      expect((await inventory()).tenants).toBe(before.tenants + 1);
      expect(await inventory()).toMatchObject({ homes: before.homes + 1, open: 0 });
    }
    expect(code(await create('one-key', 'one-key', { tier: 'pro', strategy: 'rls' }))).toEqual([
      409,
      'idempotency_conflict',
    ]);
  });

  it.each([1, 2])('goes on after a crash behind statement %i', async (statements) => {
    const slug = `crashed-x${statements}`;
    const request = { slug, tier: 'starter', strategy: 'rls' } as const;
    await admin.world.asProvisioner('catalog', async (catalog) => {
      let said = 0;
      const dying = {
        query: (text: string, values?: readonly unknown[]) => {
          // The home's statement goes over a connection of its own, between the two here.
          said += 1;
          if (said === 2) throw new Error('died');
          return catalog.query(text, values);
        },
      };
      const plane =
        statements === 1 ? { ...admin.admin.plane, credentials: undefined as never } : admin.admin.plane;
      await provisionShared(plane, dying as never, request, undefined).catch(() => {});
    });
    expect((await admin.ask('GET', `/tenants/${slug}`)).body.status).toBe('provisioning');
    const again = await create(slug);
    expect([again.status, again.body.tenant.status]).toEqual([201, 'active']);
    expect(await serves(again.body.tenant.id)).toEqual([{ body: 'first' }]);
  });

  it('says what is the matter as before', async () => {
    expect(code(await create('admin'))).toEqual([400, 'slug_invalid']);
    expect(code(await create('as-shown'))).toEqual([409, 'slug_taken']);
    await create('organised', undefined, { externalId: 'org-1' });
    expect(code(await create('organised-too', undefined, { externalId: 'org-1' }))).toEqual([
      409,
      'name_taken',
    ]);
  });
});
