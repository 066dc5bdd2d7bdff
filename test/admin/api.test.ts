import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { World } from '../support/world.ts';
import { type AdminWorld, code, issuer, startAdmin } from './support.ts';

let world: World;
let admin: AdminWorld['admin'];
let started: AdminWorld['started'];
let ask: AdminWorld['ask'];
beforeAll(async () => {
  ({ world, admin, started, ask } = await startAdmin());
});
afterAll(() => world?.close());

let number = 0;
const fresh = () => `made-n${++number}`;
const create = (body: object, key?: string) =>
  ask('POST', '/tenants', body, key === undefined ? {} : { 'Idempotency-Key': key });

describe('creating a tenant', () => {
  it('on shared tables is done at once, and its calls are served', async () => {
    const slug = fresh();
    const { status, body } = await create({ slug, tier: 'starter' });
    expect(status).toBe(201);
    expect(body.tenant).toMatchObject({ slug, tier: 'starter', strategy: 'rls', status: 'active' });
    expect(body.tenant.home).toMatchObject({ schema: 'shared', state: 'open', cluster: { kind: 'shared' } });
    expect(body.tenant.schemaVersion).toBe('9000-notes');
    expect(body.operation).toMatchObject({ kind: 'provision', tenant: slug, state: 'done' });
    expect(body.operation.steps.map((step: { step: string }) => step.step)).toEqual([
      'createHome',
      'activate',
    ]);
    const principal = { tenant: body.tenant.id, principal: 'agent', scopes: '', auth: `oidc:${issuer}` };
    expect(await world.access().resolve(principal)).toMatchObject({ slug, status: 'active' });
  });

  it('of another strategy starts the state machine once, under the operation’s name', async () => {
    const slug = fresh();
    const first = await create({ slug, tier: 'pro' }, 'schema-1');
    expect(first.status).toBe(202);
    expect(first.body.tenant).toMatchObject({ strategy: 'schema', status: 'provisioning', home: null });
    expect(started.at(-1)).toEqual({
      machine: admin.settings.provisionMachine,
      name: first.body.operation.id,
      input: { operation: first.body.operation.id, input: { placement: 'shared' } },
    });
    // With the key, and from a caller that has lost it.
    const again = [await create({ slug, tier: 'pro' }, 'schema-1'), await create({ slug, tier: 'pro' })];
    expect(again.map(({ body }) => body.operation.id)).toEqual(Array(2).fill(first.body.operation.id));
    expect(code(await create({ slug, tier: 'enterprise', strategy: 'schema' }))).toEqual([
      409,
      'operation_running',
    ]);
  });

  it.each([
    [undefined, 'dedicated'],
    ['dedicated', 'dedicated'],
    ['shared-cluster', 'shared'],
  ])('with a database of its own, placement %s, tells the machine %s', async (placement, told) => {
    await create({ slug: fresh(), tier: 'enterprise', ...(placement && { placement }) });
    expect(started.at(-1)!.input).toMatchObject({ input: { placement: told } });
  });

  it('answers the same to the same idempotency key, and 409 to another request', async () => {
    const slug = fresh();
    const first = await create({ slug, tier: 'starter' }, 'key-1');
    expect(await create({ slug, tier: 'starter' }, 'key-1')).toEqual(first);
    expect(code(await create({ slug, tier: 'pro' }, 'key-1'))).toEqual([409, 'idempotency_conflict']);
    expect(code(await create({ slug, tier: 'starter' }))).toEqual([409, 'slug_taken']);
    expect(code(await create({ slug: fresh(), tier: 'starter' }, 'ключ'))).toEqual([400, 'invalid_request']);
  });

  it('happens once, however many ask at once', async () => {
    const slug = fresh();
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => create({ slug, tier: 'starter' }, 'burst-1')),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(201));
    expect(new Set(answers.map(({ body }) => body.operation.id)).size).toBe(1);
  });

  it('keeps the issuer’s own id of the organisation, once', async () => {
    const slug = fresh();
    const made = await create({ slug, tier: 'starter', externalId: 'org_42' });
    expect(made.body.tenant).toMatchObject({ issuer, externalId: 'org_42' });
    const second = { slug: fresh(), tier: 'starter', externalId: 'org_42', issuer };
    expect(code(await create(second))).toEqual([409, 'name_taken']);
    const foreign = { slug: fresh(), tier: 'starter', issuer: 'https://elsewhere.example.com' };
    expect(code(await create(foreign))).toEqual([400, 'invalid_request']);
  });

  it.each([
    ['Hooli', 'use a-z'],
    ['ab', 'use at least 3 characters'],
    ['a'.repeat(41), 'use at most 40 characters'],
    ['tenants', 'reserved'],
    ["x'; drop table catalog.tenants; --", 'use a-z'],
  ])('refuses the slug %s, and says what it can be', async (slug, remedy) => {
    const answer = await create({ slug, tier: 'starter' });
    expect(code(answer)).toEqual([400, 'slug_invalid']);
    expect(JSON.stringify(answer.body)).toContain(remedy);
  });

  it.each([
    ['no body', undefined],
    ['no JSON', '{'],
    ['a list', []],
    ['no tier', { slug: 'nobody' }],
    ['an unknown tier', { slug: 'nobody', tier: 'gold' }],
    ['an unknown member', { slug: 'nobody', tier: 'starter', status: 'active' }],
    ['a placement on shared tables', { slug: 'nobody', tier: 'starter', placement: 'dedicated' }],
    ['an external id that no token can say', { slug: 'nobody', tier: 'starter', externalId: 'org\ud800' }],
    ['a NUL', { slug: 'nobody', tier: 'starter', externalId: 'org\0' }],
  ])('refuses %s, and makes nothing', async (_, body) => {
    expect(code(await ask('POST', '/tenants', body))).toEqual([400, 'invalid_request']);
    expect(code(await ask('GET', '/tenants/nobody'))).toEqual([404, 'unknown_tenant']);
  });

  it('says what failed, takes it back, and can be repeated to success', async () => {
    const slug = fresh();
    const database = (name: string) =>
      world.asProvisioner('catalog', (catalog) =>
        catalog.query("update catalog.clusters set database_name = $1 where kind = 'shared'", [name]),
      );
    await database('nowhere');
    const away = await create({ slug, tier: 'starter' });
    expect(code(away)).toEqual([503, 'unavailable']);
    await database(world.shared.database);
    // It goes on with the home that was recorded where there is nothing, and takes that back.
    const failed = await create({ slug, tier: 'starter' });
    expect(code(failed)).toEqual([500, 'operation_failed']);
    expect(failed.body.operation).toMatchObject({ state: 'failed', failedStep: 'activate' });
    expect(failed.body.tenant).toMatchObject({ status: 'failed', home: null });
    expect((await create({ slug, tier: 'starter' })).body.tenant.status).toBe('active');
  });
});

describe('looking', () => {
  it('lists by slug, from where the last page ended', async () => {
    const { body } = await ask('GET', '/tenants');
    const slugs = body.tenants.map(({ slug }: { slug: string }) => slug);
    expect(slugs).toContain('schema-a');
    expect(slugs).toEqual([...slugs].sort());
    expect(body.next).toBeNull();
    const rest = await ask('GET', '/tenants', undefined, {}, { after: 'rls-b' });
    expect(rest.body.tenants.map(({ slug }: { slug: string }) => slug)).toEqual(
      slugs.filter((slug: string) => slug > 'rls-b'),
    );
  });

  it.each(['rls', 'schema', 'database'] as const)('shows a tenant of strategy %s', async (strategy) => {
    const tenant = world.tenants[strategy].a;
    const { body } = await ask('GET', `/tenants/${tenant.slug}`);
    expect(body).toMatchObject({
      id: tenant.id,
      slug: tenant.slug,
      strategy,
      status: 'active',
      home: { id: tenant.home.homeId, schema: tenant.home.schema, state: 'open' },
      schemaVersion: '9000-notes',
    });
  });

  it('says why a tenant is not active, and what to run', async () => {
    const slug = fresh();
    const { body: made } = await create({ slug, tier: 'pro' });
    const why = async () => (await ask('GET', `/tenants/${slug}/why`)).body;
    expect(await why()).toMatchObject({
      status: 'provisioning',
      run: ['npm run tenants -- operations --watch'],
    });
    await world.asProvisioner('catalog', async (catalog) => {
      await catalog.query(
        "update catalog.operations set state = 'failed', failed_step = 'migrate', reason = 'No room.', finished_at = now() where operation_id = $1",
        [made.operation.id],
      );
      await catalog.query("update catalog.tenants set status = 'failed' where slug = $1", [slug]);
    });
    expect(await why()).toMatchObject({
      status: 'failed',
      why: 'Its last operation failed at migrate: No room.',
      run: [`npm run tenants -- create ${slug} --tier pro --strategy schema --wait`],
    });
    expect((await ask('GET', '/tenants/rls-a/why')).body).toMatchObject({ status: 'active', run: [] });
  });

  it('shows operations with their steps', async () => {
    const slug = fresh();
    const { body: made } = await create({ slug, tier: 'starter' });
    const { body } = await ask('GET', '/operations');
    expect(body.operations).toContainEqual(
      expect.objectContaining({ id: made.operation.id, tenant: slug, state: 'done', step: 'activate' }),
    );
    expect((await ask('GET', `/operations/${made.operation.id}`)).body).toEqual(made.operation);
    expect(code(await ask('GET', `/operations/${randomUUID()}`))).toEqual([404, 'unknown_operation']);
    expect(code(await ask('GET', '/operations/1'))).toEqual([404, 'unknown_operation']);
  });

  it('takes a NUL for the caller’s fault', async () => {
    const answer = await ask('GET', '/tenants', undefined, {}, { after: '\0' });
    expect(code(answer)).toEqual([400, 'invalid_request']);
  });

  it.each([
    ['GET', '/', 404],
    ['GET', '/tenants/', 404],
    ['GET', '/tenants/%E0%A4%A', 404],
    // Another spelling would pass a policy that denies this one.
    ['GET', '/tenants/rls-a/%77hy', 404],
    ['GET', '/tenants/rls%2Da', 404],
    ['DELETE', '/tenants/rls-a', 405],
    ['GET', '/tenants/rls-a/suspend', 405],
  ])('%s %s is %i', async (method, path, status) => {
    expect((await ask(method, path)).status).toBe(status);
  });
});

describe('suspending', () => {
  it.each(['rls', 'schema', 'database'] as const)('bites in the next call, under %s', async (strategy) => {
    const tenant = world.tenants[strategy].b;
    const call = () => world.database(tenant).query('select 1 as one');
    expect((await call()).rows).toEqual([{ one: 1 }]);
    const suspended = await ask('POST', `/tenants/${tenant.slug}/suspend`);
    expect(suspended).toMatchObject({
      status: 200,
      body: { result: 'done', tenant: { status: 'suspended' } },
    });
    await expect(call()).rejects.toMatchObject({ code: 'tenant_suspended' });
    expect((await ask('GET', `/tenants/${tenant.slug}/why`)).body.run).toEqual([
      `npm run tenants -- resume ${tenant.slug}`,
    ]);
    expect((await ask('POST', `/tenants/${tenant.slug}/resume`)).body.tenant.status).toBe('active');
    expect((await call()).rows).toEqual([{ one: 1 }]);
  });

  it('is refused to a tenant that is not there yet', async () => {
    const slug = fresh();
    await create({ slug, tier: 'pro' });
    expect(code(await ask('POST', `/tenants/${slug}/suspend`))).toEqual([409, 'wrong_status']);
    expect(code(await ask('POST', '/tenants/nobody/suspend'))).toEqual([404, 'unknown_tenant']);
  });
});
