import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { readSteps } from '../../../functions/lib/lifecycle/attempts.ts';
import { beginOffboarding, offboardSteps } from '../../../functions/lib/lifecycle/offboard.ts';
import { operationOf } from '../../../functions/lib/lifecycle/operations.ts';
import { beginProvisioning } from '../../../functions/lib/lifecycle/provision.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { resume, suspend } from '../../../functions/lib/lifecycle/suspend.ts';
import { strategies } from '../../support/world.ts';
import { type Leaving, startLeaving, steps } from './leaving.ts';
import { patiently, stepsOf } from './support.ts';

/** Which tenants can leave, what holds them up, and that they stay gone. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

it('removes or resumes, never both, when both come at once', async () => {
  const { tenant, slug } = await leaving.tenantOf('schema', 'dedicated');
  const outcomes = new Set<string>();
  for (let round = 0; round < 12; round += 1) {
    const operation = await leaving.begin(tenant, slug);
    await leaving.run(operation, 'suspend');
    const pause = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 6));
    const [removal, resumption] = await Promise.allSettled([
      pause().then(() => leaving.run(operation, 'beginRemoval')),
      pause().then(() => resume(leaving.world.plane, tenant)),
    ]);
    expect([removal.status, resumption.status].sort()).toEqual(['fulfilled', 'rejected']);
    outcomes.add(removal.status);
    const { state } = await leaving.read(operation);
    expect([state, await leaving.statusOf(tenant)]).toEqual(
      removal.status === 'fulfilled' ? ['running', 'offboarding'] : ['cancelled', 'active'],
    );
    if (removal.status === 'rejected') expect(await leaving.lifecycle.answers(tenant)).toBeGreaterThan(2);
    if (removal.status === 'fulfilled') break;
  }
});

it.each(strategies)(
  '%s: removes what a provisioning makes that begins at the same time',
  async (strategy) => {
    const before = await leaving.everything();
    const { begin, run } = leaving.lifecycle;
    const { operation, tenant, slug } = await begin(strategy, 'shared-cluster');
    await run(operation, 'compensate', { failedStep: 'reserve', failure: { Error: 'Planned' } });
    /** Creates the tenant again, as far as it may. */
    async function provisionAgain() {
      const again = await begin(strategy, 'shared-cluster', slug);
      for (const step of stepsOf(strategy, 'shared-cluster')) await run(again.operation, step);
    }
    async function isHeldUp() {
      const waiting = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
      while ((await leaving.catalog((catalog) => catalog.query(waiting))).rows.length === 0)
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    let again: Promise<unknown> | undefined;
    const { operationId } = await leaving.catalog((catalog) => {
      const query: typeof catalog.query = async (text, values) => {
        const answer = await catalog.query(text, values);
        if (/from catalog\.homes/.test(text)) {
          again ??= provisionAgain().catch((error) => error.code);
          await Promise.race([again, isHeldUp()]);
        }
        return answer as never;
      };
      const request = { slug, graceSeconds: 0, exportTo: undefined };
      return beginOffboarding({ ...catalog, query }, tenant, request);
    });
    const refused = await again;
    for (const step of steps) await leaving.run(operationId, step);
    expect(await leaving.everything()).toEqual(before);
    expect(refused).toBe('operation_running');
  },
);

describe('a tombstone', () => {
  it.each([
    [
      'an API key',
      `insert into catalog.api_keys (key_id, tenant_id, name, scopes, expires_at) values (gen_random_uuid(), $1, 'k', '{}', now())`,
    ],
    [
      'a home',
      `insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, state)
     select gen_random_uuid(), $1, cluster_id, 'schema', 'd', gen_random_uuid(), 's', 'l', 'open' from catalog.clusters limit 1`,
    ],
  ])('is waited for by %s while it is being recorded', async (_, statement) => {
    const { id: tenant } = await leaving.world.addTenant('rls');
    const late = await leaving.catalog(async (burying) => {
      await burying.query('begin');
      await burying.query('select from catalog.tenants where tenant_id = $1 for update', [tenant]);
      await burying.query(
        "update catalog.tenants set status = 'offboarded', offboarded_at = now(), home_id = null where tenant_id = $1",
        [tenant],
      );
      const late = leaving
        .catalog((connection) => connection.query(statement, [tenant]))
        .catch((error) => error.code);
      await new Promise((resolve) => setTimeout(resolve, 300));
      await burying.query('commit');
      return late;
    });
    expect(late).toBe('TN010');
  });

  it('brings nothing back: no old key, no same slug, no late step, no statement', async () => {
    const slug = 'buried-for-good';
    const request = { slug, tier: 'pro', strategy: 'schema' } as const;
    const made = await leaving.catalog((connection) => beginProvisioning(connection, request, 'buried-1'));
    const tenant = made.tenant;
    const provisioning = made.operationId;
    for (const step of ['reserve', 'createHome', 'migrate', 'verify', 'activate'])
      await leaving.lifecycle.run(provisioning, step);
    const operation = await leaving.begin(tenant, slug);
    for (const step of steps) await leaving.run(operation, step);

    const again = (key?: string) =>
      leaving.catalog((connection) => beginProvisioning(connection, request, key));
    for (const key of ['buried-1', 'buried-2', undefined])
      await expect(again(key)).rejects.toMatchObject({ code: 'slug_taken' });
    await leaving.lifecycle.run(provisioning, 'createHome');
    await expect(leaving.world.addTenant('schema', slug)).rejects.toMatchObject({ code: 'slug_taken' });
    await expect(resume(leaving.world.plane, tenant)).rejects.toMatchObject({ code: 'wrong_status' });
    for (const statement of [
      `update catalog.tenants set status = 'active', offboarded_at = null where tenant_id = $1`,
      `update catalog.tenants set slug = 'another-one' where tenant_id = $1`,
      `insert into catalog.api_keys (key_id, tenant_id, name, scopes, expires_at) values (gen_random_uuid(), $1, 'k', '{}', now())`,
      `insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, state)
       select gen_random_uuid(), $1, cluster_id, 'schema', 'd', gen_random_uuid(), 's', 'l', 'open' from catalog.clusters limit 1`,
    ])
      await expect(
        leaving.catalog((connection) => connection.query(statement, [tenant])),
      ).rejects.toMatchObject({
        code: 'TN010',
      });
    expect(await leaving.statusOf(tenant)).toBe('offboarded');
  });

  it('lets the organisation come back as another tenant', async () => {
    const external = { issuer: 'https://login.example.com', externalId: 'org_1' };
    const create = (slug: string) =>
      leaving.catalog((connection) =>
        beginProvisioning(connection, { slug, tier: 'pro', strategy: 'schema', ...external }),
      );
    const { operationId, tenant } = await create('came-first');
    await leaving.lifecycle.run(operationId, 'reserve');
    await leaving.lifecycle.run(operationId, 'compensate', { failedStep: 'reserve', failure: {} });
    const removal = await leaving.begin(tenant, 'came-first');
    for (const step of steps) await leaving.run(removal, step);
    expect((await create('came-again')).tenant).not.toBe(tenant);
  });
});

describe('whatever the tenant’s status is', () => {
  it.each(['suspended', 'failed', 'abandoned while it was provisioned'])('%s', async (status) => {
    const before = await leaving.everything();
    const { operation, tenant, slug } = await leaving.lifecycle.begin('database', 'dedicated');
    const made = [
      'reserve',
      'createInstance',
      'awaitInstance',
      'createHome',
      'migrate',
      'verify',
      'activate',
    ];
    const failure = { failedStep: 'verify', failure: {} };
    if (status === 'suspended') {
      for (const step of made) await leaving.lifecycle.run(operation, step);
      await suspend(leaving.world.plane, tenant);
    } else {
      for (const step of made.slice(0, 5)) await leaving.lifecycle.run(operation, step);
      // Abandoned: its instance, secrets and home are all still there.
      await leaving.lifecycle.run(operation, status === 'failed' ? 'compensate' : 'abandon', failure);
    }
    const removal = await leaving.begin(tenant, slug);
    const answer = await leaving.runOnce(removal, 'suspend');
    expect(answer).toEqual({ noGrace: status !== 'suspended' });
    for (const step of steps) await leaving.run(removal, step);
    expect(await leaving.everything()).toEqual(before);
  });

  it('not while another operation is changing it', async () => {
    const { tenant, slug } = await leaving.lifecycle.begin('schema', 'dedicated');
    await expect(leaving.begin(tenant, slug)).rejects.toMatchObject({ code: 'operation_running' });
  });

  it('with a stopped instance: refused with what to do, and done once it runs', async () => {
    const { tenant, slug } = await leaving.tenantOf('database', 'dedicated');
    const operation = await leaving.begin(tenant, slug, { exportTo: 'file:///nowhere' });
    const { input } = await leaving.catalog((connection) => operationOf(connection, operation, 'offboard'));
    const instance = `tenantry-${input.homes[0]!.homeId.replaceAll('-', '')}`;
    const instances = leaving.world.emulator.instances!;
    await instances.stop(instance);
    await instances.settled(instance);
    await expect(leaving.runOnce(operation, 'suspend')).rejects.toMatchObject({
      name: 'Unavailable',
      message: expect.stringContaining('start a stopped instance'),
    });
    // The catalog refuses already.
    await expect(leaving.databaseOf(tenant)).rejects.toMatchObject({ code: 'tenant_suspended' });
    await leaving.fail(operation, 'suspend');

    // Without an export nothing has to read it; but RDS lifts the deletion protection only while it runs.
    const second = await leaving.begin(tenant, slug);
    for (const step of ['suspend', 'beginRemoval', 'removeHome']) await leaving.run(second, step);
    await expect(leaving.runOnce(second, 'removeInstance')).rejects.toMatchObject({
      name: 'InstanceFailed',
      message: expect.stringContaining('Start it'),
    });
    await instances.start(instance);
    await instances.settled(instance);
    for (const step of steps) await leaving.run(second, step);
    expect(await leaving.read(second)).toMatchObject({
      state: 'done',
      result: { finalSnapshot: `${instance}-final` },
    });
  });
});

it('touches no instance without the tenant’s tag', async () => {
  const { operation, tenant, slug } = await leaving.lifecycle.begin('database', 'dedicated');
  const { input } = await leaving.catalog((connection) => operationOf(connection, operation, 'provision'));
  const instance = `tenantry-${input.homeId.replaceAll('-', '')}`;
  await leaving.lifecycle.provisioner.instances.create(instance, leaving.world.tenants.database.a.id);
  await leaving.lifecycle.run(operation, 'compensate', { failedStep: 'createInstance', failure: {} });
  const removal = await leaving.begin(tenant, slug);
  for (const step of steps) await leaving.run(removal, step);
  expect(leaving.world.emulator.instances!.all().map(({ identifier }) => identifier)).toContain(instance);
});

it('deletes many rows in batches, over several runs, and no neighbour’s', async () => {
  const { id: tenant, slug } = await leaving.world.addTenant('rls');
  const neighbour = leaving.world.tenants.rls.b;
  await leaving.fill(neighbour.id);
  await (await leaving.databaseOf(tenant)).query(
    sql`insert into notes (body) select 'n' || g from generate_series(1, 6000) g`,
  );
  await leaving.fill(tenant);
  await (await leaving.databaseOf(tenant)).query(
    sql`insert into marks (page_id) select page_id from pages, generate_series(1, 6000)`,
  );
  const operation = await leaving.begin(tenant, slug);
  for (const step of ['suspend', 'beginRemoval']) await leaving.run(operation, step);
  const { plane, instances } = leaving.lifecycle.provisioner;
  // In the first run an hour passes after a few looks: it ends there, with rows left.
  let [runs, looks] = [0, 0];
  const clock = () => Date.now() + (runs === 1 && ++looks > 3 ? 3_600_000 : 0);
  const event = { operation, step: 'removeHome', input: {} };
  await patiently(() => {
    runs += 1;
    return runStep({ plane, instances, clock }, event, ['offboard'], offboardSteps);
  });
  expect(runs).toBe(2);
  for (const step of steps) await leaving.run(operation, step);
  const { rows } = await (await leaving.databaseOf(neighbour.id)).query(
    'select count(*)::int as n from marks',
  );
  expect(rows).toEqual([{ n: 3 }]);
});

it('names what is left, and does not end as done before it is gone', async () => {
  const { tenant, slug } = await leaving.tenantOf('schema', 'dedicated');
  const operation = await leaving.begin(tenant, slug);
  const plant = async (statement: string) =>
    leaving.world.asProvisioner(leaving.world.tenants.rls.a, async (connection) => {
      const context = leaving.world.context(leaving.world.tenants.rls.a, { tenant, purpose: 'move' });
      await connection.query(`begin; set local role tenancy_owner; set local tenancy.context = '${context}'`);
      await connection.query(statement, [tenant]);
      await connection.query('commit');
    });
  await plant("insert into shared.notes (tenant_id, body) values ($1, 'left by a move')");
  for (const step of steps.slice(0, -1)) await leaving.run(operation, step);
  await expect(leaving.run(operation, 'check')).rejects.toMatchObject({
    name: 'NotRemoved',
    message: expect.stringContaining('rows in shared.notes'),
  });
  expect(await leaving.read(operation)).toMatchObject({
    state: 'running',
    result: { left: ['rows in shared.notes'] },
  });
  await leaving.fail(operation, 'check');
  expect(await leaving.statusOf(tenant)).toBe('offboarded');
  await plant('delete from shared.notes where tenant_id = $1');
  const second = await leaving.begin(tenant, slug);
  for (const step of steps) await leaving.run(second, step);
  const taken = await leaving.catalog((connection) => readSteps(connection, second));
  expect(taken.map(({ step }) => step)).toEqual(steps);
});
