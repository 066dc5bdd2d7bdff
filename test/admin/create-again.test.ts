import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { World } from '../support/world.ts';
import { type AdminWorld, code, issuer, startAdmin } from './support.ts';

let world: World;
let ask: AdminWorld['ask'];
beforeAll(async () => {
  ({ world, ask } = await startAdmin());
});
afterAll(() => world?.close());

let number = 0;
const fresh = () => `again-n${++number}`;
const create = (body: object, key?: string) =>
  ask('POST', '/tenants', body, key === undefined ? {} : { 'Idempotency-Key': key });

describe('creating a tenant again, with something else', () => {
  const ended = (operation: string) =>
    world.asProvisioner('catalog', async (catalog) => {
      await catalog.query(
        "with o as (update catalog.operations set state = 'failed' where operation_id = $1 returning tenant_id) update catalog.tenants t set status = 'failed' from o where t.tenant_id = o.tenant_id",
        [operation],
      );
    });

  it.each([
    ['tier', { tier: 'enterprise' }],
    ['strategy', { strategy: 'database' }],
    ['issuer, external id', { externalId: 'org-right' }],
    ['placement', { placement: 'shared-cluster' }],
  ])('%s: is refused while it runs, and holds once that has failed', async (named, change) => {
    const slug = fresh();
    const base = { slug, tier: 'pro', strategy: named === 'placement' ? 'database' : 'schema' };
    const first = (await create(base)).body.operation.id;
    const refused = await create({ ...base, ...change });
    expect(code(refused)).toEqual([409, 'operation_running']);
    expect(refused.body.error.message).toContain(`with another ${named}.`);
    // Nothing of what was refused is there.
    expect((await create(base)).body.operation.id).toBe(first);
    await ended(first);
    const { body } = await create({ ...base, ...change });
    expect(body.operation.id).not.toBe(first);
    expect(body.tenant).toMatchObject({ slug, ...(named !== 'placement' && change) });
  });

  it('leads the right organisation to the tenant, and the wrong one nowhere', async () => {
    const slug = fresh();
    const wrong = { slug, tier: 'pro', externalId: 'org-wrong' };
    const first = await create(wrong);
    const newKey = { name: 'agent', scopes: ['notes:read'], days: 1 };
    const key = await ask('POST', `/tenants/${slug}/keys`, newKey);
    const keys = async () => (await ask('GET', `/tenants/${slug}/keys`)).body.keys;
    await ended(first.body.operation.id);
    const { run } = (await ask('GET', `/tenants/${slug}/why`)).body;
    expect(run[0]).toContain(`--strategy schema --issuer ${issuer} --external-id org-wrong --wait`);
    // The same again: it is still whose it was.
    await ended((await create(wrong)).body.operation.id);
    expect(await keys()).toMatchObject([{ id: key.body.id, revokedAt: null }]);
    const second = await create({ ...wrong, externalId: 'org-meant' });
    expect(second.body.tenant).toMatchObject({ issuer, externalId: 'org-meant' });
    expect(await keys()).toMatchObject([{ id: key.body.id, revokedAt: expect.any(String) }]);
    const third = await ask('POST', `/tenants/${slug}/keys`, newKey);
    const other = await create({ slug: fresh(), tier: 'starter', externalId: 'org-wrong' });
    expect(other.status).toBe(201);
    await ended(second.body.operation.id);
    expect(code(await create(wrong))).toEqual([409, 'name_taken']);
    // What is refused changes nothing.
    expect((await keys()).find(({ id }: { id: string }) => id === third.body.id).revokedAt).toBeNull();
  });

  it('many at once: what runs is what the tenant is recorded as', async () => {
    const slug = fresh();
    const attempt = (n: number) => create({ slug, tier: 'pro', externalId: `org-crowd-${n}` }, `crowd-${n}`);
    for (let round = 0; round < 5; round += 1) {
      const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => attempt(10 * round + n)));
      const made = answers.filter(({ status }) => status === 202);
      expect(made).toHaveLength(1);
      const { id } = made[0]!.body.operation;
      const began = answers.indexOf(made[0]!);
      const shown = (await ask('GET', `/tenants/${slug}`)).body;
      expect([shown.externalId, shown.operation.id]).toEqual([`org-crowd-${10 * round + began}`, id]);
      await ended(id);
    }
  });

  it('names the strategy when something of another one is still to be taken back', async () => {
    const slug = fresh();
    const { body } = await create({ slug, tier: 'pro' });
    await ended(body.operation.id);
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query(
        `insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, state)
           select gen_random_uuid(), $1, cluster_id, 'schema', database_name, database_id, 'tenant_x', 't_x', 'provisioning'
             from catalog.clusters where kind = 'shared'`,
        [body.tenant.id],
      ),
    );
    const refused = await create({ slug, tier: 'starter' });
    expect(code(refused)).toEqual([409, 'wrong_strategy']);
    expect(refused.body.error.message).toContain('as schema again');
  });
});
