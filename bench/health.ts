import { askCatalog } from '../functions/lib/health/answer.ts';
import { loginSecretName } from '../functions/lib/isolation/credentials.ts';
import { asRole } from '../functions/lib/isolation/homes.ts';
import { catalogEndpoint } from '../functions/lib/lifecycle/control-plane.ts';
import { runOnce, startWatching } from '../test/lib/health/support.ts';
import { startWorld, type World } from '../test/support/world.ts';
import { median, timed } from './measure.ts';
import type { Figure } from './report.ts';

const tenants = 10_000;
/** With schemas of their own: as many as one run looks at, and some more. */
const schemas = 50;
const questions = 100;
const runs = 5;
const healthMs = 50;
const runMs = 3_000;

/** The watch, over a catalog of ten thousand tenants and a day of records; the ground of the others holds tables that it would report. */
export async function run(report: (line: string) => void): Promise<Figure[]> {
  const world = await startWorld({
    parameters: { max_connections: '200', shared_buffers: '128MB', jit: 'off' },
  });
  try {
    return await measure(report, world);
  } finally {
    await world.close();
  }
}

async function measure(report: (line: string) => void, world: World): Promise<Figure[]> {
  const watch = await startWatching(world);
  for (let more = 0; more < schemas; more += 1) await world.addTenant('schema');
  await fill(world);
  const records: number[] = [];
  for (let round = 0; round <= runs; round += 1) {
    const { report: found, state } = await runOnce(watch);
    if (state !== 'ok')
      throw new Error(`The ground is not healthy: ${state}, ${found.findings.map(({ object }) => object)}`);
    if (round > 0) records.push(found.ms);
  }
  await age(world);

  const login = 'tenancy_catalog_reader';
  const { password } = JSON.parse(await world.secrets.read(loginSecretName('catalog', login)));
  const ask = askCatalog({ ...catalogEndpoint(world.plane), login, password: async () => password });
  const whole: number[] = [];
  for (let question = 0; question < questions; question += 1) whole.push(await timed(ask));
  const database = await world.asProvisioner('catalog', (catalog) =>
    asRole(catalog, 'tenancy_keeper', async () => {
      const times: number[] = [];
      for (let question = 0; question < questions; question += 1) {
        const { rows } = await catalog.query(
          'explain (analyze, summary, format json) select * from catalog.health()',
        );
        const [plan] = rows[0]!['QUERY PLAN'];
        times.push(plan['Planning Time'] + plan['Execution Time']);
      }
      return times;
    }),
  );

  const canary = median(records);
  report(
    `The watch, ${tenants.toLocaleString('en')} tenants in the catalog, ${schemas} schemas beside the others.`,
  );
  report(
    `  GET /health: ${median(database).toFixed(2)} ms of the database, ${median(whole).toFixed(1)} ms with its connection; a run of the canary: ${canary} ms`,
  );
  return [
    { name: 'GET /health, database ms', value: median(database), atMost: healthMs },
    { name: 'canary run, ms', value: canary, atMost: runMs },
  ];
}

/** Tenants on shared tables, in the catalog and in their database: for them a row in each is all there is. */
async function fill(world: World): Promise<void> {
  const { clusterId } = world.plane.catalog;
  const { database, databaseId } = world.shared;
  const { rows: homes } = await world.asProvisioner('catalog', async (catalog) => {
    await catalog.query(
      `insert into catalog.tenants (slug, tier, strategy, status)
       select 'many-n' || g, 'starter', 'rls', 'active' from generate_series(1, $1) g`,
      [tenants],
    );
    await catalog.query(
      `insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, state)
       select gen_random_uuid(), tenant_id, $1, 'rls', $2, $3, 'shared', 'tenancy_app', 'open' from catalog.tenants where slug like 'many-%'`,
      [clusterId, database, databaseId],
    );
    await catalog.query(
      `update catalog.tenants t set home_id = h.home_id from catalog.homes h where h.tenant_id = t.tenant_id and t.slug like 'many-%'`,
      [],
    );
    return catalog.query<{ home: string; tenant: string }>(
      `select h.home_id as home, h.tenant_id as tenant from catalog.homes h join catalog.tenants t using (tenant_id) where t.slug like 'many-%'`,
      [],
    );
  });
  await world.asProvisioner(world.tenants.rls.a, (connection) =>
    asRole(connection, 'tenancy_keeper', () =>
      connection.query(
        `insert into tenancy.homes (home_id, tenant_id, login, schema_name, epoch, state)
         select h, t, 'tenancy_app', 'shared', 1, 'open' from unnest($1::uuid[], $2::uuid[]) as given(h, t)`,
        [homes.map(({ home }) => home), homes.map(({ tenant }) => tenant)],
      ),
    ),
  );
}

/** As many records as a day leaves behind. */
async function age(world: World): Promise<void> {
  await world.asProvisioner('catalog', (catalog) =>
    catalog.query(
      `insert into catalog.health_runs (started_at, finished_at, state, report, next)
       select now(), now(), state, report, next from generate_series(1, 1440), (select * from catalog.health_runs order by run_id desc limit 1) last`,
      [],
    ),
  );
}
