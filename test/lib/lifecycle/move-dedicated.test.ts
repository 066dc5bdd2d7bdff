import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { instanceName } from '../../../functions/lib/aws/rds.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { adminEndpoint } from '../../../functions/lib/lifecycle/control-plane.ts';
import type { Placement, Strategy, TenantId } from '../../../functions/lib/tenant/tenant.ts';
import { limits, startWorld, type World } from '../../support/world.ts';
import {
  begin,
  homeOf,
  moveState,
  notes,
  operationState,
  runMove,
  type StepName,
  startWriters,
  step,
  type Writers,
  wish,
} from './move.support.ts';
import { cut, type Lifecycle, lifecycleOf, patiently } from './support.ts';

/** To and from an instance of the tenant's own: a real server each, made and deleted as RDS would. */
let world: World;
let lifecycle: Lifecycle;
const running: Writers[] = [];
beforeAll(async () => {
  world = await startWorld({ rds: true, parameters: { max_connections: '300' } });
  lifecycle = lifecycleOf(world);
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((writers) => writers.stop()));
});
afterAll(() => world?.close());

type Kind = [Strategy, Placement];
interface Resident {
  readonly id: TenantId;
  readonly slug: string;
  readonly principal: { tenant: TenantId; principal: string; scopes: string; auth: string };
}

async function resident([strategy, placement]: Kind, count = 50): Promise<Resident> {
  const { tenant: id, slug } =
    strategy === 'rls'
      ? await world.addTenant('rls').then(({ id, slug }) => ({ tenant: id, slug }))
      : await lifecycle.provisioned(strategy, placement);
  const principal = { tenant: id, principal: 'agent', scopes: '', auth: 'oidc:http://127.0.0.1/issuer' };
  const access = world.access();
  const db = access.database(principal, await access.resolve(principal), limits('w'));
  await db.query(
    sql`insert into notes (body, amount) select 'first ' || n, 7 from generate_series(1, ${count}) n`,
  );
  await access.pools.close();
  return { id, slug, principal };
}

function started(tenant: Resident): Writers {
  const writers = startWriters(world, tenant, 2);
  running.push(writers);
  return writers;
}

async function expectWhole(tenant: Resident, writers?: Writers): Promise<void> {
  await writers?.stop();
  const found = await notes(world, tenant);
  for (const key of writers?.acknowledged ?? []) expect(found.get(key)).toBe(2);
  expect([...found].filter(([, amount]) => amount === 7)).toHaveLength(50);
}

async function inventory(): Promise<string[]> {
  await lifecycle.settled();
  return lifecycle.inventory();
}
const of = (lines: readonly string[], homeId: string) =>
  lines.filter((line) => line.includes(homeId) || line.includes(homeId.replaceAll('-', '')));

const own: Kind = ['database', 'dedicated'];
const directions: [Kind, Kind][] = [
  [['rls', 'shared-cluster'], own],
  [['database', 'shared-cluster'], own],
  [own, ['schema', 'shared-cluster']],
  [own, ['rls', 'shared-cluster']],
  [own, ['database', 'shared-cluster']],
];
const steps: StepName[] = [
  'createTargetInstance',
  'prepareTargetInstance',
  'prepare',
  'capture',
  'copy',
  'land',
  'switchOver',
];
const stepsTo = ([strategy, placement]: Kind) =>
  strategy === 'database' && placement === 'dedicated' ? steps : steps.slice(2);

const beginTo = (tenant: Resident, [strategy, placement]: Kind, more: object = {}) =>
  begin(world, tenant.slug, strategy, { placement, ...more });

/** As the state machine does it after the switch, or instead of it. */
async function ending(operation: string, name: 'complete' | 'cancel', input: Record<string, unknown> = {}) {
  for (;;) {
    // Nothing, when the operation has ended meanwhile.
    const left = (await step(world, operation, name, input)) as
      | { more: boolean; instance: boolean }
      | undefined;
    if (!left?.more) return;
    if (left.instance) await patiently(() => step(world, operation, 'removeLeftInstance'));
  }
}

describe.each(directions)('from %j to %j', (from, to) => {
  it('the state machine loses no write, answers none with an error, and leaves nothing of the old home', async () => {
    const tenant = await resident(from);
    const left = await homeOf(world, tenant);
    const writers = started(tenant);
    const operation = await beginTo(tenant, to, { windowSeconds: 1 });
    const { status } = await runMove(world, operation);
    await writers.stop();
    expect([status, writers.errors]).toEqual(['SUCCEEDED', []]);
    await expectWhole(tenant, writers);
    const home = await homeOf(world, tenant);
    expect(home.strategy).toBe(to[0]);
    const after = await inventory();
    expect(of(after, left.homeId)).toEqual([]);
    const { result } = await operationState(world, operation);
    if (to === own) {
      expect(home.clusterId).toBe(home.homeId);
      const instance = world.emulator.instances!.get(instanceName(home.homeId));
      expect(instance.tags).toEqual([{ Key: 'tenantry:tenant', Value: tenant.id }]);
    } else
      expect(after.some((line) => line.startsWith('instance') && line.includes(home.homeId))).toBe(false);
    if (from === own)
      expect(result).toMatchObject({
        finalSnapshot: `${instanceName(left.homeId)}-final`,
        removedInstance: instanceName(left.homeId),
      });
  });

  it('goes back with all that was written since', async () => {
    const tenant = await resident(from);
    const before = await inventory();
    const writers = started(tenant);
    const { homeId } = await homeOf(world, tenant);
    const operation = await beginTo(tenant, to);
    const { status } = await runMove(world, operation, async ({ step }) => {
      if (step === 'follow') await wish(world, operation, 'reverse');
    });
    const { reason } = await operationState(world, operation);
    expect([status, reason]).toEqual(['SUCCEEDED', undefined]);
    await expectWhole(tenant, writers);
    expect(writers.errors).toEqual([]);
    expect((await homeOf(world, tenant)).homeId).toBe(homeId);
    expect(await inventory()).toEqual(before);
  });
});

/** Ends every connection of the control plane to both servers, as failovers do. */
async function killBackends(operation: string): Promise<void> {
  await lifecycle.cutProvisioner();
  const { sourceHome, targetHome } = await moveState(world, operation);
  for (const { identifier, port } of world.emulator.instances!.all())
    for (const homeId of [sourceHome, targetHome]) {
      if (identifier !== instanceName(homeId)) continue;
      const at = { clusterId: homeId, host: '127.0.0.1', port, database: 'postgres' };
      // It may not be there yet.
      await withConnection(adminEndpoint(world.plane, at), cut).catch(() => {});
    }
}

describe.each([directions[0]!, directions[2]!])('faults from %j to %j', (from, to) => {
  it('every step twice, twice at once, and after the end', async () => {
    const tenant = await resident(from);
    const writers = started(tenant);
    const operation = await beginTo(tenant, to);
    const once = (name: StepName) => patiently(() => step(world, operation, name));
    for (const name of stepsTo(to)) {
      await Promise.all([once(name), once(name)]);
      await once(name);
    }
    await Promise.all([ending(operation, 'complete'), ending(operation, 'complete')]);
    await ending(operation, 'complete');
    for (const name of stepsTo(to)) await once(name);
    await expectWhole(tenant, writers);
    expect(await operationState(world, operation)).toMatchObject({ state: 'done' });
  });

  it.each(stepsTo(to).slice(0, -1))(
    'given up after %s: the tenant stays, and nothing is left',
    async (last) => {
      const tenant = await resident(from);
      const before = await inventory();
      const operation = await beginTo(tenant, to);
      for (const name of stepsTo(to).slice(0, stepsTo(to).indexOf(last) + 1))
        await patiently(() => step(world, operation, name));
      const failure = { Error: 'Planned', Cause: '{"errorMessage":"planned"}' };
      const input = { failedStep: last, failure };
      await Promise.all([ending(operation, 'cancel', input), ending(operation, 'cancel', input)]);
      await expectWhole(tenant);
      expect(await inventory()).toEqual(before);
      expect(await operationState(world, operation)).toMatchObject({
        state: 'failed',
        failedStep: last,
        reason: 'planned',
      });
    },
  );

  it('its backends are killed in every step, again and again: it goes on', async () => {
    const tenant = await resident(from);
    const writers = started(tenant);
    const operation = await beginTo(tenant, to);
    for (const name of stepsTo(to))
      for (let delay = 5; ; delay *= 2) {
        const kill =
          delay < 400
            ? new Promise((resolve) => setTimeout(resolve, delay)).then(() => killBackends(operation))
            : undefined;
        try {
          await patiently(() => step(world, operation, name));
          break;
        } catch (error) {
          expect(['Unavailable', 'Busy', 'OperationEnded']).toContain((error as Error).name);
        } finally {
          await kill;
        }
      }
    await ending(operation, 'complete');
    await expectWhole(tenant, writers);
    expect((await homeOf(world, tenant)).strategy).toBe(to[0]);
  });
});

describe('instances that are not this tenant’s', () => {
  it('are neither taken nor deleted, whatever their names', async () => {
    const tenant = await resident(['rls', 'shared-cluster']);
    const operation = await beginTo(tenant, own);
    const { targetHome } = await moveState(world, operation);
    const name = instanceName(targetHome);
    const stranger = '00000000-0000-4000-8000-00000000000a' as TenantId;
    await lifecycle.provisioner.instances.create(name, stranger);
    const { status } = await runMove(world, operation);
    expect(status).toBe('FAILED');
    expect(await operationState(world, operation)).toMatchObject({
      state: 'failed',
      failedStep: 'createTargetInstance',
      reason: expect.stringContaining('without this tenant'),
    });
    expect(await lifecycle.provisioner.instances.status(name, stranger)).toBeDefined();
    await expectWhole(tenant);
    await world.emulator.instances!.settled(name);
    await lifecycle.provisioner.instances.remove(name, stranger);
  });

  it('a move to an instance ends when it does not come up, and takes away what there is of it', async () => {
    const tenant = await resident(['rls', 'shared-cluster']);
    const before = await inventory();
    const operation = await beginTo(tenant, own);
    const { status } = await runMove(world, operation, async ({ step }) => {
      if (step === 'prepareTargetInstance')
        throw Object.assign(new Error('planned'), { name: 'InstanceFailed' });
    });
    expect(status).toBe('FAILED');
    expect(await inventory()).toEqual(before);
    await expectWhole(tenant);
  });
});

it('refuses an instance for one who has its own', async () => {
  const tenant = await resident(own);
  await expect(beginTo(tenant, own)).rejects.toMatchObject({
    code: 'move_refused',
    message: expect.stringContaining('an instance of its own already'),
  });
});
