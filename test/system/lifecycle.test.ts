import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Deployment, deploy } from './deployment.ts';
import { operate, result } from './operator.ts';

/** What happens to tenants between their first day and their last, by the bundles, machines and rights of the templates. */
let deployed: Deployment;
let operator: ReturnType<typeof operate>;
const tokens: Record<string, string> = {};
const everybody = ['acme', 'globex', 'initech', 'umbrella'];

beforeAll(async () => {
  deployed = await deploy();
  operator = operate(deployed);
  await deployed.install('Create');
  await operator.create('acme', { tier: 'starter' });
  await operator.create('globex', { tier: 'pro' });
  await operator.create('initech', { tier: 'enterprise', placement: 'shared-cluster' });
});
afterAll(() => deployed?.close());

const shown = async (slug: string) => (await operator.admin('GET', `/tenants/${slug}`)).body;

/** One item, put there as the server's superuser: a catalogue comes from elsewhere, no tool makes one. */
async function seed(slug: string): Promise<void> {
  const { id, home } = await shown(slug);
  await deployed.server.ask(
    home.database,
    `insert into ${home.schema}.items (tenant_id, sku, name, category, location, unit, price_cents, quantity, reorder_level)
     values ('${id}', 'A-1', 'of ${slug}', 'Parts', 'A', 'piece', 100, 1, 50)`,
    home.port,
  );
}

async function call(slug: string, name: string, args: object) {
  const answer = await operator.call(tokens[slug]!, 'tools/call', { name, arguments: args });
  return answer.statusCode === 200 ? result(answer.body) : { status: answer.statusCode };
}
const adjust = (slug: string) =>
  call(slug, 'adjust_stock', { sku: 'A-1', change: 5, reason: 'counted', idempotency_key: randomUUID() });
const stock = async (slug: string) => (await call(slug, 'list_low_stock', {})).structuredContent;

describe('a tenant with an instance of its own', () => {
  it('gets one that RDS makes, with its mark, and is entered with its own password over TLS', async () => {
    await operator.create('umbrella', { tier: 'enterprise' });
    const [instance, ...more] = deployed.emulator.instances!.all();
    expect(more).toEqual([]);
    const { id, home } = await shown('umbrella');
    expect(instance).toMatchObject({
      status: 'available',
      port: home.port,
      deletionProtection: true,
      tags: [{ Key: 'tenantry:tenant', Value: id }],
    });
    const [login] = await deployed.server.ask(
      home.database,
      `select rolpassword is not null as password, pg_has_role(oid, 'rds_iam', 'member') as iam from pg_authid where rolname ~ '^t_'`,
      home.port,
    );
    expect(login).toEqual({ password: true, iam: false });
  });
});

it('everybody’s tools read and write their own rows', async () => {
  for (const slug of everybody) {
    tokens[slug] = await operator.keyOf(slug);
    await seed(slug);
    expect((await adjust(slug)).structuredContent, slug).toMatchObject({ quantity: 6 });
    const { items } = (await stock(slug)) as { items: { name: string }[] };
    expect(items.map(({ name }) => name)).toEqual([`of ${slug}`]);
  }
});

describe('a migration of all tenants', () => {
  it('reaches every home, the instance of its own too, and leaves each serving', async () => {
    deployed.release(
      '0002-suppliers.sql',
      'create table suppliers (tenant_id uuid not null, supplier_id uuid not null default gen_random_uuid(), primary key (tenant_id, supplier_id));',
    );
    const { body: plan } = await operator.admin('POST', '/migrations/plan', {});
    expect(JSON.stringify(plan)).toContain('0002-suppliers');
    await operator.done(await operator.admin('POST', '/migrations', { canaries: ['globex'] }));
    for (const slug of everybody) {
      expect(await shown(slug)).toMatchObject({ schemaVersion: '0002-suppliers' });
      expect(await stock(slug), slug).toBeDefined();
    }
  });
});

describe('a move', () => {
  it('takes a tenant out of the shared tables into a schema of its own, with its rows and its key', async () => {
    const before = await stock('acme');
    const begun = await operator.admin('POST', '/tenants/acme/move', { to: 'schema', windowSeconds: 0 });
    await operator.done(begun);
    const { body } = await operator.admin('GET', '/tenants/acme/move');
    expect(body).toMatchObject({ from: 'rls', to: 'schema', phase: 'completed' });
    expect(await stock('acme')).toEqual(before);
    expect((await adjust('acme')).structuredContent).toMatchObject({ quantity: 11 });
    const left = await deployed.server.ask('tenantry', 'select count(*)::int as items from shared.items');
    expect(left).toEqual([{ items: 0 }]);
  });
});

describe('an export', () => {
  it('writes a tenant’s rows into the bucket, from where another tenant takes them', async () => {
    const bucket = deployed.assembly.only('AWS::S3::Bucket', /^Exports/).id.toLowerCase();
    const folder = `s3://${bucket}/by-hand/acme`;
    const out = await operator.admin('POST', '/tenants/acme/export', { to: folder });
    await operator.done(out);
    const from = `${folder}/${out.body.operation.id}`;
    expect(readdirSync(join(deployed.exports, bucket)).join()).toMatch(/by-hand.*acme/);
    await operator.create('hooli', { tier: 'pro' });
    tokens.hooli = await operator.keyOf('hooli');
    await operator.done(await operator.admin('POST', '/tenants/hooli/import', { from, otherTenant: true }));
    expect(await stock('hooli')).toEqual(await stock('acme'));
  });
});

describe('an offboarding', () => {
  it.each(['globex', 'initech', 'umbrella'])('removes %s, its secret and its instance', async (slug) => {
    const { id } = await shown(slug);
    await operator.done(await operator.admin('POST', `/tenants/${slug}/offboard`, { graceSeconds: 0 }));
    expect(await shown(slug)).toMatchObject({ status: 'offboarded' });
    // Refused, or failed on a database that is gone: no row in any case.
    expect(await stock(slug)).toBeUndefined();
    const names = deployed.emulator.secrets.all().map(({ name }) => name);
    expect(names.filter((name) => name.includes(id))).toEqual([]);
    if (slug === 'umbrella') expect(deployed.emulator.instances!.all()).toEqual([]);
  });

  it('leaves the others serving', async () => {
    for (const slug of ['acme', 'hooli']) expect(await stock(slug), slug).toBeDefined();
  });
});

it('every call of AWS was within the rights of the function that made it', () => {
  expect(deployed.refused).toEqual([]);
  const asked = new Set(deployed.gate.calls.map(({ caller, action }) => `${caller} ${action}`));
  for (const wanted of [
    'provision-tenant rds:CreateDBInstance',
    'provision-tenant rds:DeleteDBInstance',
    'provision-tenant rds:CreateDBSnapshot',
    'transfer-tenant s3:PutObject',
    'transfer-tenant s3:GetObject',
    'migrate-tenants lambda:InvokeFunction',
  ])
    expect(asked).toContain(wanted);
});
