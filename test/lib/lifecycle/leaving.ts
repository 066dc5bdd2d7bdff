import { recordApiKey } from '../../../functions/lib/catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { beginOffboarding, instanceSteps, offboardSteps } from '../../../functions/lib/lifecycle/offboard.ts';
import { readOperation } from '../../../functions/lib/lifecycle/operations.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import type { Placement, Strategy, TenantId } from '../../../functions/lib/tenant/tenant.ts';
import { limits, startWorld, type World } from '../../support/world.ts';
import { type Lifecycle, lifecycleOf, patiently } from './support.ts';

/** Tables that point at each other in a line and in a circle: they have an order, and none. */
export const links = parseMigration(
  '9001-links.sql',
  `create table folders (tenant_id uuid not null, folder_id uuid not null default gen_random_uuid(), first_page uuid,
     primary key (tenant_id, folder_id));
   create table pages (tenant_id uuid not null, page_id uuid not null default gen_random_uuid(), folder_id uuid not null,
     primary key (tenant_id, page_id), foreign key (tenant_id, folder_id) references folders (tenant_id, folder_id));
   alter table folders add foreign key (tenant_id, first_page) references pages (tenant_id, page_id);
   create table marks (tenant_id uuid not null, mark_id uuid not null default gen_random_uuid(), page_id uuid not null,
     primary key (tenant_id, mark_id), foreign key (tenant_id, page_id) references pages (tenant_id, page_id));`,
);

/** The steps of offboarding, in order. */
export const steps = [
  'suspend',
  'beginRemoval',
  'removeHome',
  'removeInstance',
  'removeSecrets',
  'bury',
  'check',
];

const auth = 'oidc:http://127.0.0.1/issuer';

/** A world to leave, with tables whose foreign keys have an order and none. */
export async function startLeaving() {
  const world = await startWorld({
    rds: true,
    migrations: [links],
    parameters: { max_connections: '400' },
  });
  const lifecycle = lifecycleOf(world);
  return { world, lifecycle, ...leavingOf(world, lifecycle) };
}
export type Leaving = Awaited<ReturnType<typeof startLeaving>>;

function leavingOf(world: World, lifecycle: Lifecycle) {
  const catalog = <T>(work: (connection: ControlConnection) => Promise<T>) =>
    world.asProvisioner('catalog', work);

  let number = 0;
  /** A tenant with rows in every table, and an API key. */
  async function tenantOf(
    strategy: Strategy,
    placement: Placement,
  ): Promise<{ tenant: TenantId; slug: string }> {
    const made =
      strategy === 'rls'
        ? await world.addTenant('rls', `leaves-n${++number}`).then(({ id, slug }) => ({ tenant: id, slug }))
        : await lifecycle.provisioned(strategy, placement);
    await fill(made.tenant);
    const expires = new Date(Date.now() + 86_400_000);
    await catalog((connection) =>
      recordApiKey(connection, {
        keyId: crypto.randomUUID(),
        tenant: made.tenant,
        name: 'k',
        scopes: [],
        expires,
      }),
    );
    return made;
  }

  async function databaseOf(tenant: TenantId) {
    const access = world.access();
    const principal = { tenant, principal: 'p', scopes: '', auth };
    return access.database(principal, await access.resolve(principal), limits('w'));
  }

  async function fill(tenant: TenantId): Promise<void> {
    const db = await databaseOf(tenant);
    await db.query(sql`with a as (insert into notes (body) values ('parent') returning note_id)
    insert into notes (body, parent_id) select 'child', note_id from a`);
    await db.query(sql`insert into folders default values`);
    await db.query(sql`insert into pages (folder_id) select folder_id from folders`);
    await db.query(
      sql`update folders set first_page = page_id from pages where pages.folder_id = folders.folder_id`,
    );
    await db.query(sql`insert into marks (page_id) select page_id from pages, generate_series(1, 3)`);
  }

  /** All that is there, rows of shared tables too: taken back means equal. */
  async function everything(): Promise<string[]> {
    await lifecycle.settled();
    // As one whom row security does not bind: rows of a tenant that no home knows any more count too.
    const rows = await withConnection(
      world.superuser(world.tenants.rls.a.home.database),
      async (connection) => {
        const counted: string[] = [];
        for (const table of ['notes', 'folders', 'pages', 'marks', 'tenancy_probe']) {
          const { rows } = await connection.query(
            `select tenant_id, count(*) from shared.${table} group by 1 order by 1`,
            [],
          );
          counted.push(...rows.map((row) => `${table} ${row.tenant_id} ${row.count}`));
        }
        return counted;
      },
    );
    return [...(await lifecycle.inventory()), ...rows];
  }

  const begin = async (tenant: TenantId, slug: string, request: object = {}) => {
    const { operationId } = await catalog((connection) =>
      beginOffboarding(connection, tenant, { slug, graceSeconds: 0, exportTo: undefined, ...request }),
    );
    return operationId;
  };

  const runOnce = (operation: string, step: string, input: Record<string, unknown> = {}) => {
    const { plane, instances } = lifecycle.provisioner;
    const context = { plane, instances, clock: Date.now };
    return runStep(context, { operation, step, input }, ['offboard'], {
      ...offboardSteps,
      ...instanceSteps,
    });
  };
  const run = (operation: string, step: string, input?: Record<string, unknown>) =>
    patiently(() => runOnce(operation, step, input));
  const fail = (operation: string, step: string) =>
    run(operation, 'recordFailure', {
      failedStep: step,
      failure: { Error: 'Planned', Cause: '{"errorMessage":"planned"}' },
    });
  const read = (operation: string) => catalog((connection) => readOperation(connection, operation));
  const statusOf = (tenant: TenantId) =>
    catalog(async (connection) => {
      const { rows } = await connection.query('select status from catalog.tenants where tenant_id = $1', [
        tenant,
      ]);
      return rows[0]!.status as string;
    });

  return { catalog, tenantOf, databaseOf, fill, everything, begin, runOnce, run, fail, read, statusOf };
}
