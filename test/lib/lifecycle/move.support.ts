import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Move, type MoveWish, readMove, wishMove } from '../../../functions/lib/catalog/moves.ts';
import { presentHome } from '../../../functions/lib/catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { adminEndpoint, endpointOf } from '../../../functions/lib/lifecycle/control-plane.ts';
import { type Mover, moveSteps } from '../../../functions/lib/lifecycle/move.ts';
import { beginMove, type MoveRequest, machineInput } from '../../../functions/lib/lifecycle/move-begin.ts';
import { moveInstanceSteps } from '../../../functions/lib/lifecycle/move-instance.ts';
import { operationOf } from '../../../functions/lib/lifecycle/operations.ts';
import type { Provisioner } from '../../../functions/lib/lifecycle/provision.ts';
import { runStep, type StepEvent } from '../../../functions/lib/lifecycle/step.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { FunctionError } from '../../../infra/local/lambda/environment.ts';
import { runProductMachine } from '../../support/machine.ts';
import { limits, type TestTenant, type World } from '../../support/world.ts';
import { probeThrough } from './probe.support.ts';
import { lifecycleOf } from './support.ts';

export const moverOf = (world: World): Mover => ({
  plane: world.plane,
  release: world.release,
  probe: (tenant) => probeThrough(world.access(), tenant),
  clock: Date.now,
});

export type StepName = keyof typeof moveSteps | keyof typeof moveInstanceSteps;

const provisioners = new WeakMap<World, Provisioner>();
/** What the function that makes and deletes instances works with. */
function provisionerOf(world: World): Provisioner {
  const known = provisioners.get(world) ?? lifecycleOf(world).provisioner;
  provisioners.set(world, known);
  return known;
}

const run = (world: World, event: StepEvent) =>
  Object.hasOwn(moveInstanceSteps, event.step)
    ? runStep(provisionerOf(world), event, ['move'], moveInstanceSteps)
    : runStep(moverOf(world), event, ['move'], moveSteps);

export const begin = (world: World, slug: string, to: Strategy, more: Partial<MoveRequest> = {}) =>
  world.asProvisioner(
    'catalog',
    async (catalog) =>
      (await beginMove(catalog, { slug, to, placement: 'shared-cluster', windowSeconds: 3_600, ...more }))
        .operationId,
  );

export const step = (world: World, operation: string, name: StepName, input: Record<string, unknown> = {}) =>
  run(world, { operation, step: name, input });

/** Up to the switch, as the state machine does it; `around` may break a step. */
export async function untilSwitched(
  world: World,
  operation: string,
  around: (name: StepName, run: () => Promise<unknown>) => Promise<unknown> = (_, run) => run(),
) {
  for (const name of ['prepare', 'capture', 'copy', 'land', 'switchOver'] as const) {
    for (;;) {
      const answer = (await around(name, () => step(world, operation, name))) as
        | { more?: boolean }
        | undefined;
      if (!answer?.more) break;
    }
  }
}

/** The machine's own file, run as the local cloud does, but for `clockFactor`: how long a second of its waits lasts. */
export const runMachineOf = (
  input: { operation: string },
  clockFactor: number,
  invoke: (event: StepEvent) => Promise<unknown>,
) =>
  runProductMachine('move-tenant', {
    input,
    clockFactor,
    invoke: (_, payload) => invoke(payload as StepEvent),
  });

/** With every step in this process. */
export const runMove = async (
  world: World,
  operation: string,
  onStep: (event: StepEvent) => Promise<void> | void = () => {},
  more: object = {},
) =>
  runMachineOf({ ...machineInput(await operationState(world, operation)), ...more }, 0.001, async (event) => {
    try {
      await onStep(event);
      return await run(world, event);
    } catch (error) {
      const { name, message, stack } = error as Error;
      // An instance takes as long as it takes, however short the machine's waits are here.
      if (name === 'InstancePending') await new Promise((resolve) => setTimeout(resolve, 500));
      throw new FunctionError(name, message, stack);
    }
  });

export async function move(world: World, slug: string, to: Strategy) {
  const operation = await begin(world, slug, to);
  await untilSwitched(world, operation);
  await step(world, operation, 'complete');
  return operation;
}

export const moveState = (world: World, operation: string): Promise<Move> =>
  world.asProvisioner('catalog', async (catalog) => (await readMove(catalog, operation))!);

export const operationState = (world: World, operation: string) =>
  world.asProvisioner('catalog', (catalog) => operationOf(catalog, operation, 'move'));

export const wish = (world: World, operation: string, wanted: MoveWish) =>
  world.asProvisioner('catalog', (catalog) => wishMove(catalog, operation, wanted));

/** A tenant with notes named `first 1`, `first 2`, …, written through the data path. */
export async function tenantWithNotes(
  world: World,
  strategy: Strategy,
  count: number,
  amount = 0,
): Promise<TestTenant> {
  const tenant = await world.addTenant(strategy);
  await world
    .database(tenant)
    .query(
      sql`insert into notes (body, amount) select 'first ' || n, ${amount}::bigint from generate_series(1, ${count}::integer) n`,
    );
  return tenant;
}

export const homeOf = (world: World, tenant: Pick<TestTenant, 'id'>) =>
  world.asProvisioner('catalog', (catalog) => presentHome(catalog, tenant.id));

/** As tenancy_provisioner in the database in which the tenant lives now. */
export async function atHome<T>(
  world: World,
  tenant: Pick<TestTenant, 'id'>,
  work: (connection: ControlConnection) => Promise<T>,
): Promise<T> {
  return withConnection(endpointOf(world.plane, await homeOf(world, tenant)), work);
}

/** Every database that holds tenants. */
async function databases(world: World): Promise<string[]> {
  return world.asProvisioner('catalog', async (catalog) => {
    const { rows } = await catalog.query(
      `select datname from pg_database where datname = 'tenantry' or datname like 'home\\_%' or datname like 'own\\_%'`,
    );
    return rows.map(({ datname }) => datname as string);
  });
}

/** What every database says of this tenant's homes. */
export async function admitted(world: World, tenant: TestTenant) {
  const { clusterId, host, port } = world.plane.catalog;
  const found: {
    database: string;
    home_id: string;
    state: string;
    epoch: number;
    capturing: boolean;
    busy: boolean;
  }[] = [];
  for (const database of await databases(world)) {
    const endpoint = adminEndpoint(world.plane, { clusterId, host, port, database });
    await withConnection(endpoint, (connection) =>
      asRole(connection, 'tenancy_keeper', async () => {
        const { rows } = await connection.query(
          `select home_id, state, epoch::integer, capturing, move_id is not null as busy from tenancy.homes where tenant_id = $1`,
          [tenant.id],
        );
        found.push(...rows.map((row) => ({ database, ...row }) as (typeof found)[number]));
      }),
    );
  }
  return found;
}

/** Everything that exists for tenants, wherever it is: names, rows of the log, staging. */
export async function inventory(world: World): Promise<string[]> {
  const { clusterId, host, port } = world.plane.catalog;
  const found = await world.asProvisioner('catalog', async (catalog) => {
    const { rows } = await catalog.query(
      `select 'catalog home ' || home_id || ' ' || state as what from catalog.homes
       union all select 'role ' || rolname from pg_roles where rolname like 't\\_%'
       union all select 'database ' || datname from pg_database where not datistemplate`,
    );
    return rows.map(({ what }) => what as string);
  });
  for (const database of await databases(world))
    await withConnection(adminEndpoint(world.plane, { clusterId, host, port, database }), (connection) =>
      asRole(connection, 'tenancy_keeper', async () => {
        const { rows } = await connection.query(
          `select 'schema ' || nspname as what from pg_namespace where nspname like 'tenant\\_%' or nspname like 'moving\\_%'
           union all select 'home ' || home_id || ' ' || state || ' ' || capturing || ' ' || coalesce(move_id::text, '') from tenancy.homes
           union all select 'change ' || change_id from tenancy.changes`,
        );
        found.push(...rows.map(({ what }) => `${database} ${what}`));
      }),
    );
  found.push(...world.emulator.secrets.all().map(({ name }) => `secret ${name}`));
  return found.sort();
}

export interface Writers {
  /** Every write that was acknowledged, by its idempotency key. */
  readonly acknowledged: ReadonlySet<string>;
  readonly errors: readonly unknown[];
  stop(): Promise<void>;
}

/** Between two writes of one agent. Without it most of the machine's time would go into them, and not into what they disturb. */
const PAUSE_MS = 5;

/** Agents that write through the real data path, each write with a key of its own, repeated until it is acknowledged. */
export function startWriters(world: World, tenant: Pick<TestTenant, 'principal'>, count = 3): Writers {
  const access = world.access({ maxConnections: count });
  const acknowledged = new Set<string>();
  const errors: unknown[] = [];
  let stopped = false;
  const work = Array.from({ length: count }, async () => {
    while (!stopped) {
      const key = randomUUID();
      for (let attempt = 0; ; attempt += 1) {
        try {
          const db = access.database(tenant.principal, await access.resolve(tenant.principal), limits('w'));
          // A repetition of a write whose answer was lost changes nothing.
          await db.query(
            sql`insert into notes (body, amount) values (${key}, 1) on conflict (tenant_id, body) do nothing`,
          );
          await db.query(sql`update notes set amount = amount + 1 where body = ${key} and amount = 1`);
          acknowledged.add(key);
          break;
        } catch (error) {
          errors.push(error);
          if (stopped && attempt > 5) break;
          await sleep(PAUSE_MS);
        }
      }
      await sleep(PAUSE_MS);
    }
  });
  return {
    acknowledged,
    errors,
    async stop() {
      stopped = true;
      await Promise.all(work);
      await access.pools.close();
    },
  };
}

/** The tenant's database, wherever it lives now; closed with the world. */
export async function currentDatabase(
  world: World,
  tenant: Pick<TestTenant, 'principal'>,
  limit = limits('w'),
) {
  const access = world.access();
  return access.database(tenant.principal, await access.resolve(tenant.principal), limit);
}

/** The tenant's notes through the data path. */
export async function notes(
  world: World,
  tenant: Pick<TestTenant, 'principal'>,
): Promise<Map<string, number>> {
  const access = world.access();
  const route = await access.resolve(tenant.principal);
  const db = access.database(
    tenant.principal,
    route,
    limits('r', { maxRows: 100_000, maxBytes: 50_000_000 }),
  );
  const { rows } = await db.query<{ body: string; amount: string }>(sql`select body, amount from notes`);
  await access.pools.close();
  return new Map(rows.map(({ body, amount }) => [body, Number(amount)]));
}
