import { presentHome } from '../../../functions/lib/catalog/tenants.ts';
import {
  beginMigration,
  type MigrateRequest,
  type Migrator,
  migrateSteps,
  turnOf,
} from '../../../functions/lib/lifecycle/migrate.ts';
import { workers } from '../../../functions/lib/lifecycle/migrate-work.ts';
import { readOperation } from '../../../functions/lib/lifecycle/operations.ts';
import { runStep, type StepEvent } from '../../../functions/lib/lifecycle/step.ts';
import { type MigrationFile, parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import type { Release } from '../../../functions/lib/migrations/release.ts';
import { FunctionError } from '../../../infra/local/lambda/environment.ts';
import type { HistoryEvent } from '../../../infra/local/state-machines/history.ts';
import { runProductMachine } from '../../support/machine.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';

export const request = (more: Partial<MigrateRequest> = {}): MigrateRequest => ({
  canaries: [],
  percent: 10,
  tolerated: 0,
  ...more,
});

/** The release that a world was made with, and these files after its own. */
export const releaseWith = ({ release }: World, ...files: MigrationFile[]): Release => ({
  ...release,
  home: [...release.home, ...files],
});

export const file = parseMigration;

/** A world with six homes more, whose release grows with every test: a home is at one release only. */
export class Fleet {
  readonly world: World;
  readonly more: readonly TestTenant[];
  release: Release;
  /** Of the newest file. */
  number = 9_500;

  private constructor(world: World, more: readonly TestTenant[]) {
    this.world = world;
    this.more = more;
    this.release = world.release;
  }

  static async start(): Promise<Fleet> {
    const world = await startWorld();
    return new Fleet(world, await Promise.all(Array.from({ length: 6 }, () => world.addTenant('schema'))));
  }

  /** With a new file for each of these texts. */
  next(name: string, ...sql: string[]): Release {
    const files = sql.map((text) => file(`${++this.number}-${name}.sql`, text));
    this.release = releaseWith({ ...this.world, release: this.release }, ...files);
    return this.release;
  }
}

export const migratorOf = (world: World, release: Release, more: Partial<Migrator> = {}): Migrator => ({
  plane: world.plane,
  release,
  probe: async () => {},
  workers,
  clock: Date.now,
  ...more,
});

/** One step as its function runs it; `before` may kill what it runs on. */
export const step = (migrator: Migrator, event: StepEvent) =>
  runStep(migrator, event, ['migrate'], migrateSteps, turnOf);

export const begin = (world: World, release: Release, wanted = request()) =>
  world.asProvisioner(
    'catalog',
    async (catalog) => (await beginMigration(catalog, release, wanted)).operationId,
  );

/** The machine's own file, run as the local cloud does; waits last a thousandth. */
export async function run(
  migrator: Migrator,
  operation: string,
  onStep: (event: StepEvent) => Promise<void> | void = () => {},
  more: object = {},
) {
  const history: HistoryEvent[] = [];
  /** Bytes of the largest text that a function was given or gave. */
  let largest = 0;
  const weighed = <T>(data: T): T => {
    largest = Math.max(largest, Buffer.byteLength(JSON.stringify(data) ?? ''));
    return data;
  };
  const outcome = await runProductMachine('migrate-tenants', {
    input: { operation, ...more },
    clockFactor: 0.001,
    record: (event) => history.push(event),
    async invoke(_, payload) {
      try {
        await onStep(weighed(payload) as StepEvent);
        return weighed(await step(migrator, payload as StepEvent));
      } catch (error) {
        const { name, message, stack } = error as Error;
        throw new FunctionError(name, message, stack);
      }
    },
  });
  return { outcome, history, largest };
}

export async function migrate(
  world: World,
  release: Release,
  wanted = request(),
  more: Partial<Migrator> = {},
) {
  const operation = await begin(world, release, wanted);
  const ran = await run(migratorOf(world, release, more), operation);
  return { operation, ...ran, ...(await ended(world, operation)) };
}

export const ended = (world: World, operation: string) =>
  world.asProvisioner('catalog', async (catalog) => {
    const { state, reason, failedStep } = await readOperation(catalog, operation);
    const { rows } = await catalog.query(
      `select t.slug, m.kind, m.ring, m.state, m.reason, m.applied, m.version from catalog.migration_targets m
         left join catalog.homes h on h.home_id = m.target_id left join catalog.tenants t on t.tenant_id = h.tenant_id
        where operation_id = $1 order by ring, slug`,
      [operation],
    );
    return { state, reason, failedStep, targets: rows as { [name: string]: never }[] };
  });

export const versionOf = (world: World, tenant: TestTenant) =>
  world.asProvisioner('catalog', async (catalog) => {
    const { homeId } = await presentHome(catalog, tenant.id);
    const { rows } = await catalog.query('select schema_version from catalog.homes where home_id = $1', [
      homeId,
    ]);
    return rows[0]!.schema_version as string | null;
  });

/** What a home's table of notes has by now. */
export const notesColumns = (world: World, tenant: TestTenant) =>
  world.asProvisioner(tenant, async (connection) => {
    const { rows } = await connection.query(
      `select attname from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = $1 and c.relname = 'notes' and a.attnum > 0 and not a.attisdropped order by attnum`,
      [tenant.home.schema],
    );
    return rows.map(({ attname }) => attname as string);
  });
