import pg from 'pg';
import { type ControlConnection, withConnection } from '../functions/lib/database/connect.ts';
import { type ConnectionPools, createConnectionPools } from '../functions/lib/database/pools.ts';
import { openTenantDatabase } from '../functions/lib/database/tenant-database.ts';
import type { Endpoint, Mode } from '../functions/lib/database/types.ts';
import { isolations } from '../functions/lib/isolation/isolation.ts';
import { type Pgbouncer, pgbouncerIsInstalled, startPgbouncer } from '../test/support/pgbouncer.ts';
import { limits, routeOf, startWorld, type TestTenant, type World } from '../test/support/world.ts';
import { type DelayProxy, startDelayProxy } from './delay-proxy.ts';

export { pgbouncerIsInstalled };

/** Each way, ms: about what lies between two availability zones. */
export const delayMs = 0.5;
const rowsOfTenant = 1_000;

/** The tool's statement: twenty rows by an index. Tenant-bound, and for tables that isolate nothing by themselves. */
export const tools = 'select note_id, body, amount from notes where body >= $1 order by body limit 20';
const bare =
  'select note_id, body, amount from bench_bare.notes where tenant_id = $2 and body >= $1 order by body limit 20';
const textbook =
  'select note_id, body, amount from bench_textbook.notes where body >= $1 order by body limit 20';

/** Where a client connects to: the server or the pooler, with or without a delay before it. */
export interface Way {
  readonly name: string;
  readonly port: number;
}

/** One way of running the tool's statement, on connections of its own. */
export interface Path {
  readonly name: string;
  run(tenant: TestTenant): Promise<unknown>;
  close(): Promise<void>;
}

/** A running product to measure: the real runtime, twenty `rls` tenants, and the same rows in unisolated tables. */
export class Ground {
  readonly world: World;
  readonly tenants: readonly TestTenant[];
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #helpers: (DelayProxy | Pgbouncer)[] = [];

  private constructor(world: World, tenants: readonly TestTenant[]) {
    this.world = world;
    this.tenants = tenants;
  }

  static async prepare(): Promise<Ground> {
    const world = await startWorld({
      parameters: { max_connections: '200', shared_buffers: '128MB', jit: 'off' },
    });
    const tenants: TestTenant[] = [];
    while (tenants.length < 20) tenants.push(await world.addTenant('rls'));
    const ground = new Ground(world, tenants);
    for (const tenant of tenants) await ground.fill(tenant);
    await ground.asSuperuser((connection) => connection.query(unisolated));
    return ground;
  }

  async fill(tenant: TestTenant): Promise<void> {
    await this.world
      .database(tenant)
      .query("insert into notes (body) select 'note ' || g from generate_series(1, $1) g", [rowsOfTenant]);
  }

  async endpoint(tenant: TestTenant, port = tenant.place.port): Promise<Endpoint> {
    let known = this.#endpoints.get(tenant.id);
    if (!known) {
      const located = await isolations[tenant.strategy].locate(
        routeOf(tenant),
        this.world.plane.credentials,
        'off',
        false,
      );
      const password = await located.password(false);
      known = { ...located, password: async () => password };
      this.#endpoints.set(tenant.id, known);
    }
    return { ...known, port };
  }

  async delayed(port: number): Promise<number> {
    const proxy = await startDelayProxy(port, delayMs);
    this.#helpers.push(proxy);
    return proxy.port;
  }

  async pooler(tenants: readonly TestTenant[], serverConnections: number): Promise<number> {
    const logins: Record<string, string> = {};
    for (const tenant of tenants) {
      const { login, password } = await this.endpoint(tenant);
      logins[login] = await password(false);
    }
    const pooler = await startPgbouncer({ server: this.world.cluster.server, logins, serverConnections });
    this.#helpers.push(pooler);
    return pooler.port;
  }

  /** The product's: one round trip, tenant-bound. */
  isolated(port: number, connections: number, mode: Mode = 'r', pools = this.pools(connections)): Path {
    return {
      name: 'tenantry',
      run: async (tenant) => {
        const endpoint = await this.endpoint(tenant, port);
        const db = openTenantDatabase(
          async ({ statementMs }) => ({
            endpoint,
            context: this.world.context(tenant, { mode, statementMs }),
          }),
          limits(mode),
          pools,
        );
        return db.query(tools, ['note 5']);
      },
      close: () => pools.close(),
    };
  }

  pools(maxConnections: number): ConnectionPools {
    return createConnectionPools({ maxConnections, maxIdleMs: 60_000, waitMs: 30_000 });
  }

  /** (a) The same statement without any isolation, by node-postgres' own pool. */
  async unisolated(port: number, connections: number): Promise<Path> {
    const pool = await this.#plainPool(port, connections);
    return {
      name: 'un-isolated',
      run: ({ id }) => pool.query(bare, ['note 5', id]),
      close: () => pool.end(),
    };
  }

  /** (b) As it is usually written: four round trips, a plain policy on a session variable. */
  async fourTrips(port: number, connections: number): Promise<Path> {
    const pool = await this.#plainPool(port, connections);
    return {
      name: 'four trips',
      run: async ({ id }) => {
        const client = await pool.connect();
        try {
          await client.query('BEGIN');
          await client.query("select set_config('app.tenant', $1, true)", [id]);
          const result = await client.query(textbook, ['note 5']);
          await client.query('COMMIT');
          return result;
        } finally {
          client.release();
        }
      },
      close: () => pool.end(),
    };
  }

  async #plainPool(port: number, max: number): Promise<pg.Pool> {
    const { host, database, login, password } = await this.endpoint(this.tenants[0]!);
    const pool = new pg.Pool({
      host,
      port,
      database,
      user: login,
      password: await password(false),
      max,
      ssl: false,
    });
    pool.on('error', () => {});
    return pool;
  }

  /** Only to lay out the tables to compare with. */
  asSuperuser<T>(work: (connection: ControlConnection) => Promise<T>): Promise<T> {
    return withConnection(this.world.superuser(this.world.shared.admin.database), work);
  }

  async close(): Promise<void> {
    for (const helper of this.#helpers) await helper.close();
    await this.world.close();
  }
}

const unisolated = ['bare', 'textbook']
  .map(
    (name) => `
  create schema bench_${name};
  create table bench_${name}.notes (like shared.notes);
  insert into bench_${name}.notes select * from shared.notes;
  alter table bench_${name}.notes add primary key (tenant_id, note_id), add unique (tenant_id, body);
  grant usage on schema bench_${name} to tenancy_app;
  grant select on bench_${name}.notes to tenancy_app;`,
  )
  .concat(`
  alter table bench_textbook.notes enable row level security;
  create policy tenant on bench_textbook.notes using (tenant_id = current_setting('app.tenant')::uuid);
  analyze;`)
  .join('');
