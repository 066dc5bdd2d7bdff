import { DescribeDBInstancesCommand, RDSClient } from '@aws-sdk/client-rds';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { homesOf } from '../../../functions/lib/catalog/tenants.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { RetryableError, TenantryError } from '../../../functions/lib/errors.ts';
import { endSessions } from '../../../functions/lib/isolation/homes.ts';
import { readSteps } from '../../../functions/lib/lifecycle/attempts.ts';
import { operationOf, readOperation } from '../../../functions/lib/lifecycle/operations.ts';
import {
  beginProvisioning,
  type Provisioner,
  provisionSteps,
} from '../../../functions/lib/lifecycle/provision.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import type { Placement, Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { limits, startWorld, type World } from '../../support/world.ts';
import { evenWhenSlow, type Lifecycle, lifecycleOf, stepsOf as order } from './support.ts';

/** Every step of the state machine against every fault: run twice, twice at once, never reported, failed, and taken back. */
let world: World;
let lifecycle: Lifecycle;

beforeAll(async () => {
  world = await startWorld({ rds: true });
  lifecycle = lifecycleOf(world);
});
afterAll(() => world?.close());

const kinds: [Strategy, Placement][] = [
  ['schema', 'dedicated'],
  ['database', 'shared-cluster'],
  ['database', 'dedicated'],
];

const begin: Lifecycle['begin'] = (...which) => lifecycle.begin(...which);
const run: Lifecycle['run'] = (...which) => lifecycle.run(...which);
const inventory = () => lifecycle.inventory();
const settled = () => lifecycle.settled();
const answers: Lifecycle['answers'] = (tenant) => lifecycle.answers(tenant);

const fail = (operation: string, step: string) =>
  run(operation, 'compensate', {
    failedStep: step,
    failure: { Error: 'Planned', Cause: '{"errorMessage":"planned"}' },
  });

describe.each(kinds)('%s, %s', (strategy, placement) => {
  const steps = order(strategy, placement);

  it('is done when every step runs twice, twice at once, and again after the end', async () => {
    const { operation, tenant } = await begin(strategy, placement);
    for (const step of steps) {
      await Promise.all([run(operation, step), run(operation, step)]);
      await run(operation, step);
    }
    for (const step of steps) await run(operation, step);
    expect(await answers(tenant)).toBe(1);
    const { state } = await world.asProvisioner('catalog', (catalog) => readOperation(catalog, operation));
    expect(state).toBe('done');
    const rows = await world.asProvisioner(world.tenants.rls.a, (connection) =>
      connection.query("select from pg_roles where rolname like 't\\_%' and rolcanlogin is false"),
    );
    expect(rows.rowCount).toBe(0);
  });

  it.each(steps)(
    'leaves nothing when %s fails after it was carried out, and can be retried to success',
    async (failing) => {
      await settled();
      const before = await inventory();
      const first = await begin(strategy, placement);
      for (const step of steps.slice(0, steps.indexOf(failing) + 1)) {
        // The last step's own end is the operation's end: it fails before that.
        if (step !== 'activate') await run(first.operation, step);
      }
      await Promise.all([fail(first.operation, failing), fail(first.operation, failing)]);
      await settled();
      expect(await inventory()).toEqual(before);

      const told = await world.asProvisioner('catalog', (catalog) => readOperation(catalog, first.operation));
      expect(told).toMatchObject({ state: 'failed', failedStep: failing, reason: 'planned' });
      await expect(run(first.operation, 'createHome')).rejects.toMatchObject({ name: 'OperationEnded' });

      const second = await begin(strategy, placement, first.slug);
      expect(second.tenant).toBe(first.tenant);
      for (const step of steps) await run(second.operation, step);
      expect(await answers(second.tenant)).toBe(1);
    },
  );
});

describe('after a compensation that failed', () => {
  /** Provisioned up to `migrate`, then given up with everything, or the half of it, still there. */
  const abandoned = async (strategy: Strategy, placement: Placement, isHalf: boolean) => {
    const first = await begin(strategy, placement);
    const steps = order(strategy, placement);
    for (const step of steps.slice(0, steps.indexOf('verify'))) await run(first.operation, step);
    const { home_id, login } = await world.asProvisioner('catalog', async (catalog) => {
      const { rows } = await catalog.query('select home_id, login from catalog.homes where tenant_id = $1', [
        first.tenant,
      ]);
      return rows[0]!;
    });
    if (isHalf && placement === 'dedicated' && strategy === 'database')
      await lifecycle.provisioner.instances.remove(`tenantry-${home_id.replaceAll('-', '')}`, first.tenant);
    else if (isHalf)
      await world.asProvisioner(world.tenants.rls.a, (connection) => endSessions(connection, login));
    await run(first.operation, 'abandon', { failedStep: 'migrate', failure: { Error: 'Planned' } });
    return first;
  };

  it.each(
    kinds.flatMap(([strategy, placement]) =>
      [false, true].map((isHalf) => [strategy, placement, isHalf] as const),
    ),
  )(
    '%s, %s: the tenant can be provisioned, and nothing of the first time is left (half: %s)',
    async (strategy, placement, isHalf) => {
      await settled();
      const before = await inventory();
      const first = await abandoned(strategy, placement, isHalf);
      const second = await begin(strategy, placement, first.slug);
      expect(second.tenant).toBe(first.tenant);
      for (const step of order(strategy, placement).slice(0, -1)) await run(second.operation, step);
      await fail(second.operation, 'activate');
      await settled();
      expect(await inventory()).toEqual(before);

      const third = await begin(strategy, placement, first.slug);
      for (const step of order(strategy, placement)) await run(third.operation, step);
      expect(await answers(third.tenant)).toBe(1);
    },
  );

  it('it may be put somewhere else', async () => {
    const first = await abandoned('database', 'dedicated', false);
    const second = await begin('database', 'shared-cluster', first.slug);
    for (const step of order('database', 'shared-cluster')) await run(second.operation, step);
    expect(await answers(first.tenant)).toBe(1);
    await settled();
    const homes = await world.asProvisioner('catalog', (catalog) => homesOf(catalog, first.tenant));
    expect(homes.map(({ clusterId }) => clusterId)).toEqual([world.plane.catalog.clusterId]);
  });
});

describe('the end', () => {
  const endedAs = async (operation: string) =>
    (await world.asProvisioner('catalog', (catalog) => readOperation(catalog, operation))).state;

  it.each(kinds)(
    '%s, %s: a tenant that is active is not taken back, whoever tries',
    async (strategy, placement) => {
      const { operation, tenant } = await begin(strategy, placement);
      for (const step of order(strategy, placement)) await run(operation, step);
      // As a process leaves it that dies behind the activation, and an execution that is killed there.
      await world.asProvisioner('catalog', (catalog) =>
        catalog.query(
          "update catalog.operations set state = 'running', finished_at = null where operation_id = $1",
          [operation],
        ),
      );
      const before = await inventory();
      await fail(operation, 'activate');
      expect(await endedAs(operation)).toBe('done');
      expect(await inventory()).toEqual(before);
      expect(await answers(tenant)).toBe(1);
    },
  );

  it('is one statement: the tenant is not active while its operation still runs', async () => {
    const { operation, tenant } = await begin('schema', 'dedicated');
    const steps = order('schema', 'dedicated');
    for (const step of steps.slice(0, -1)) await run(operation, step);
    const asOwner = (statement: string) =>
      withConnection(world.superuser('tenantry_catalog'), (connection) => connection.query(statement));
    await asOwner(
      `create function catalog.planned() returns trigger language plpgsql as $$ begin raise exception 'planned'; end $$;
       create trigger planned before update on catalog.operations for each row
         when (new.state = 'done' and new.operation_id = '${operation}') execute function catalog.planned()`,
    );
    try {
      await expect(run(operation, 'activate')).rejects.toThrow('planned');
    } finally {
      await asOwner('drop trigger planned on catalog.operations; drop function catalog.planned()');
    }
    const { rows } = await world.asProvisioner('catalog', (catalog) =>
      catalog.query('select status from catalog.tenants where tenant_id = $1', [tenant]),
    );
    expect([rows[0]!.status, await endedAs(operation)]).toEqual(['provisioning', 'running']);
    await run(operation, 'activate');
    expect([await answers(tenant), await endedAs(operation)]).toEqual([1, 'done']);
  });
});

it('tries again when a call through the data path fails once, and says what it said', async () => {
  const { operation } = await begin('schema', 'dedicated');
  for (const step of ['reserve', 'createHome', 'migrate']) await run(operation, step);
  const busy = async () => {
    throw new TenantryError('probe_failed', 'A call failed: busy.');
  };
  const verify = (context: Provisioner | Promise<Provisioner>) =>
    runStep(context, { operation, step: 'verify', input: {} }, ['provision'], provisionSteps);
  await expect(verify({ ...lifecycle.provisioner, probe: busy })).rejects.toMatchObject({
    name: 'Unavailable',
    message: 'A call failed: busy.',
  });
  // And what a step works with may not be there yet: its machine knows the name.
  const away = Promise.reject(
    new RetryableError('unavailable', 'A credential could not be read. Try again.'),
  );
  await expect(verify(away)).rejects.toMatchObject({ name: 'Unavailable' });
  await verify(lifecycle.provisioner);
});

it('survives PostgreSQL being killed in the middle of each step', async () => {
  const { operation, tenant } = await begin('schema', 'dedicated');
  for (const step of order('schema', 'dedicated')) {
    const attempt = run(operation, step).then(
      () => 'done',
      () => 'cut',
    );
    await new Promise((resolve) => setTimeout(resolve, 15));
    await world.cluster.server.stop('immediate');
    await attempt;
    await world.cluster.restart();
    await run(operation, step);
  }
  expect(await answers(tenant)).toBe(1);
  const { state, steps } = await world.asProvisioner('catalog', async (catalog) => ({
    ...(await readOperation(catalog, operation)),
    steps: await readSteps(catalog, operation),
  }));
  // The last step's own end is the operation's: killed behind it, its attempt is never told of.
  expect(state).toBe('done');
  expect(steps.filter(({ outcome }) => outcome === 'done').map(({ step }) => step)).toEqual(
    expect.arrayContaining(['createHome', 'migrate']),
  );
});

it('begins once when it is asked twenty times at once with one key, and refuses the key for anything else', async () => {
  const request = { slug: 'twenty-times', tier: 'pro', strategy: 'schema' } as const;
  const begun = await Promise.all(
    Array.from({ length: 20 }, () =>
      world.asProvisioner('catalog', (catalog) => beginProvisioning(catalog, request, 'key-1')),
    ),
  );
  expect(new Set(begun.map(({ operationId }) => operationId)).size).toBe(1);
  const again = (changed: object, key: string) =>
    world.asProvisioner('catalog', (catalog) => beginProvisioning(catalog, { ...request, ...changed }, key));
  await expect(again({ tier: 'starter' }, 'key-1')).rejects.toMatchObject({ code: 'idempotency_conflict' });
  await expect(again({}, 'key-2')).rejects.toMatchObject({ code: 'operation_running' });
});

it('makes twenty at once: logins, grants and schemas of all of them, and every one answers', async () => {
  const begun = await Promise.all(Array.from({ length: 20 }, () => begin('schema', 'dedicated')));
  await Promise.all(
    begun.map(async ({ operation }) => {
      for (const step of order('schema', 'dedicated')) await evenWhenSlow(() => run(operation, step));
    }),
  );
  for (const { tenant } of begun) expect(await answers(tenant)).toBe(1);
});

it('touches no instance without the tenant’s tag', async () => {
  const { operation } = await begin('database', 'dedicated');
  const { input } = await world.asProvisioner('catalog', (catalog) =>
    operationOf(catalog, operation, 'provision'),
  );
  const other = world.tenants.database.a.id;
  const name = `tenantry-${input.homeId.replaceAll('-', '')}`;
  await lifecycle.provisioner.instances.create(name, other);
  await expect(run(operation, 'createInstance')).rejects.toMatchObject({ name: 'NameTaken' });
  await fail(operation, 'createInstance');
  const left = await new RDSClient().send(new DescribeDBInstancesCommand({ DBInstanceIdentifier: name }));
  // One that is full would serve nobody: RDS gives it more by itself.
  expect(left.DBInstances).toMatchObject([{ AllocatedStorage: 20, MaxAllocatedStorage: 200 }]);
});

it('is not open for anybody before it is activated', async () => {
  const { operation, tenant } = await begin('schema', 'dedicated');
  for (const step of ['reserve', 'createHome', 'migrate']) await run(operation, step);
  const access = world.access();
  const ask = (auth: string) => access.resolve({ tenant, principal: 'p', scopes: '', auth });
  await expect(ask('oidc:x')).rejects.toMatchObject({ code: 'tenant_not_served' });
  const verify = { tenant, principal: 'tenantry', scopes: '', auth: 'verify' };
  const route = await ask('verify');
  // Even with the route in hand, an ordinary context is refused by the home itself.
  const ordinary = access.database(
    { ...verify, auth: 'oidc:x' },
    route,
    limits('r', { deadline: Date.now() + 500 }),
  );
  await expect(ordinary.query('select 1')).rejects.toMatchObject({
    code: expect.stringMatching(/busy|deadline/),
  });
  expect((await access.database(verify, route, limits('r')).query('select 1 as one')).rows).toEqual([
    { one: 1 },
  ]);
  await fail(operation, 'migrate');
});
