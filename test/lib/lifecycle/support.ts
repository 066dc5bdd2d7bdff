import { createInstances } from '../../../functions/lib/aws/rds.ts';
import { type ControlConnection, withConnection } from '../../../functions/lib/database/connect.ts';
import { KeptConnections } from '../../../functions/lib/database/kept.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import type { Access } from '../../../functions/lib/isolation/access.ts';
import { abandon, compensate } from '../../../functions/lib/lifecycle/compensate.ts';
import {
  beginProvisioning,
  type Provisioner,
  provisionSteps,
} from '../../../functions/lib/lifecycle/provision.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import type { Placement, Strategy, TenantId } from '../../../functions/lib/tenant/tenant.ts';
import { limits, type World } from '../../support/world.ts';
import { probe, probeThrough } from './probe.support.ts';

/** What tests of the lifecycle do to a world with an emulated RDS. */
export interface Lifecycle {
  readonly provisioner: Provisioner;
  begin(
    strategy: Strategy,
    placement: Placement,
    slug?: string,
  ): Promise<{ operation: string; tenant: TenantId; slug: string }>;
  /** One step of provisioning, as the state machine runs it: what is pending is asked again. */
  run(operation: string, step: string, input?: Record<string, unknown>): Promise<void>;
  /** A tenant that is there and answers. */
  provisioned(strategy: Strategy, placement: Placement): Promise<{ tenant: TenantId; slug: string }>;
  /** Everything that exists for tenants, wherever it is. */
  inventory(): Promise<string[]>;
  /** Resolves when no instance is on its way out. */
  settled(): Promise<void>;
  /** How many notes it has after one more was written through its data path. */
  answers(tenant: TenantId): Promise<number>;
  /** Ends every connection of the control plane, as a failover or a killed process does. */
  cutProvisioner(): Promise<void>;
}

/** The steps that a tenant's provisioning takes. */
export const stepsOf = (strategy: Strategy, placement: Placement): string[] =>
  Object.keys(provisionSteps).filter(
    (step) => !step.endsWith('Instance') || (strategy === 'database' && placement === 'dedicated'),
  );

/** As the state machine does it: what is pending is asked again, and a server that is at work in a database to be dropped. */
export async function patiently(step: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await step();
      return;
    } catch (error) {
      if (!['InstancePending', 'Unfinished', 'Busy'].includes((error as Error).name)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** As the state machine tries again: twenty calls at once may find a busy machine too slow. Whatever else fails does fail. */
export async function evenWhenSlow(step: () => Promise<void>): Promise<void> {
  for (;;)
    try {
      return await step();
    } catch (error) {
      if ((error as Error).name !== 'Unavailable') throw error;
    }
}

/** @param warm the environment that every tenant is tried in; without it each gets a new one */
export function lifecycleOf(world: World, warm?: Access): Lifecycle {
  const instances = createInstances({
    instanceClass: 'db.t4g.micro',
    engineVersion: '17.10',
    storageGb: 20,
    parameterGroup: 'tenantry',
    subnetGroup: 'tenantry',
    securityGroups: ['sg-tenantry'],
    kmsKeyId: undefined,
    certificateAuthority: 'rds-ca-rsa2048-g1',
    backupDays: 7,
  });
  const tryTenant = (tenant: TenantId) => (warm ? probe(warm, tenant) : probeThrough(world.access(), tenant));
  const provisioner = {
    plane: world.plane,
    instances,
    region: 'eu-west-1',
    release: world.release,
    probe: tryTenant,
  };
  let number = 0;

  const begin: Lifecycle['begin'] = async (strategy, placement, slug = `made-n${++number}`) => {
    const request = { slug, tier: 'pro', strategy, placement } as const;
    const { operationId, tenant } = await world.asProvisioner('catalog', (catalog) =>
      beginProvisioning(catalog, request),
    );
    return { operation: operationId, tenant, slug };
  };
  const run: Lifecycle['run'] = (operation, step, input = {}) =>
    patiently(() =>
      runStep(provisioner, { operation, step, input }, ['provision'], {
        ...provisionSteps,
        compensate,
        abandon,
      }),
    );

  return {
    provisioner,
    begin,
    run,
    async provisioned(strategy, placement) {
      const { operation, tenant, slug } = await begin(strategy, placement);
      for (const step of stepsOf(strategy, placement)) await run(operation, step);
      return { tenant, slug };
    },
    inventory: () => inventory(world),
    async settled() {
      while (world.emulator.instances!.all().some(({ status }) => status === 'deleting'))
        await new Promise((resolve) => setTimeout(resolve, 50));
    },
    async answers(tenant) {
      const access = world.access();
      const principal = { tenant, principal: 'p', scopes: '', auth: 'oidc:x' };
      const db = access.database(principal, await access.resolve(principal), limits('w'));
      await db.query(sql`insert into notes (body) values (${crypto.randomUUID()})`);
      return (await db.query(sql`select * from notes`)).rows.length;
    },
    cutProvisioner: () => cutProvisioner(world),
  };
}

/** Ends every connection of the control plane to the world's server. */
export const cutProvisioner = (world: World): Promise<void> =>
  withConnection({ ...world.superuser('postgres'), kept: cutters }, cut);
/** A cut comes when it is asked for, and not a handshake later. */
const cutters = new KeptConnections(1);

/** Every other one to this server, at once; returns when they are gone, so that none that is just ending is taken for a living one. */
export async function cut(connection: ControlConnection): Promise<void> {
  const { rows } = await connection.query<{ pid: number }>(
    `select pid, pg_terminate_backend(pid) from pg_stat_activity
      where usename = 'tenancy_provisioner' and pid <> pg_backend_pid()`,
    [],
  );
  const pids = rows.map(({ pid }) => pid);
  const left = () => connection.query('select from pg_stat_activity where pid = any ($1)', [pids]);
  while ((await left()).rows.length > 0) await new Promise((resolve) => setTimeout(resolve, 1));
}

async function inventory(world: World): Promise<string[]> {
  const names = async (where: Parameters<World['asProvisioner']>[0], statement: string) =>
    world.asProvisioner(where, async (connection) => {
      await connection.query('begin; set local role tenancy_keeper');
      const { rows } = await connection.query(statement);
      await connection.query('rollback');
      return rows.map((row) => row.what as string);
    });
  const shared = await names(
    world.tenants.rls.a,
    `select 'role ' || rolname as what from pg_roles where rolname like 't\\_%'
     union all select 'schema ' || nspname from pg_namespace where nspname like 'tenant\\_%'
     union all select 'database ' || datname from pg_database where datname like 'home\\_%' or datname like 'own\\_%'
     union all select 'home ' || home_id from tenancy.homes
     union all select 'change ' || change_id from tenancy.changes`,
  );
  const recorded = await names(
    'catalog',
    `select 'catalog home ' || home_id as what from catalog.homes
     union all select 'cluster ' || cluster_id from catalog.clusters
     union all select 'key ' || key_id from catalog.api_keys`,
  );
  const instances = (world.emulator.instances?.all() ?? []).map(({ identifier }) => `instance ${identifier}`);
  const secrets = world.emulator.secrets.all().map(({ name }) => `secret ${name}`);
  return [...shared, ...recorded, ...instances, ...secrets].sort();
}
