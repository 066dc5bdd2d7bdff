import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type ControlConnection, withConnection } from '../../../../functions/lib/database/connect.ts';
import type { CallLimits, Endpoint, FindPassage } from '../../../../functions/lib/database/types.ts';
import type { TenantryError } from '../../../../functions/lib/errors.ts';
import { stablePort } from '../../../../infra/local/ports.ts';
import { type PostgresServer, postgresBase, startPostgres } from '../../../../infra/local/postgres.ts';

/**
 * A stand-in for the tenancy runtime, with no more than what the database layer is to react to: it routes,
 * sets the statement timeout from the context and answers with the SQLSTATEs. Isolation is proven elsewhere.
 */
const standIn = `
  create schema tenancy;
  create table tenancy.homes (tenant uuid primary key, schema text not null, epoch int not null default 1, state text not null default 'open');
  create table tenancy.entered (at timestamptz not null default clock_timestamp(), tenant uuid);
  create procedure tenancy.admit(context text) language plpgsql as $$
  declare part text[] := string_to_array(context, '.'); home tenancy.homes;
  begin
    if part[1] is distinct from 'v1' then raise exception 'bad' using errcode = 'TN002'; end if;
    select * into home from tenancy.homes where tenant = part[4]::uuid;
    if home.epoch <> part[5]::int then raise exception 'stale' using errcode = 'TN004'; end if;
    if home.state = 'fenced' then raise exception 'fenced' using errcode = 'TN005'; end if;
    if home.state = 'read_only' and part[6] = 'w' then raise exception 'read only' using errcode = 'TN006'; end if;
    if home.state = 'suspended' then raise exception 'suspended' using errcode = 'TN007'; end if;
    if home.state = 'busy' then raise exception 'busy' using errcode = 'TN008'; end if;
    if home.state = 'broken' then perform 1 / 0; end if;
    if current_setting('transaction_isolation') <> 'read committed' then raise exception 'level' using errcode = 'TN009'; end if;
    if home.state = 'older' and part[6] = 'r' and current_setting('transaction_read_only') = 'off' then raise exception 'reader' using errcode = 'TN006'; end if;
    if part[6] = 'r' then set local transaction_read_only = on; end if;
    perform set_config('search_path', home.schema || ', pg_temp', true);
    perform set_config('statement_timeout', part[8], true);
  end $$;
  grant usage on schema tenancy to public;
  grant select on tenancy.homes to public;
  create role app login password 'app';
  create role other login password 'other';
`;

const tenantTables = (schema: string) => `
  create schema ${schema};
  create table ${schema}.items (id int primary key, name text, at timestamptz, tags text[], data jsonb,
    parent int references ${schema}.items deferrable initially immediate);
  create table ${schema}.notes (id int generated always as identity, text text);
  grant usage on schema ${schema} to app, other;
  grant all on all tables in schema ${schema} to app, other;
`;

export const acme = { id: '00000000-0000-4000-8000-00000000000a', schema: 'acme' };
export const globex = { id: '00000000-0000-4000-8000-00000000000b', schema: 'globex' };
export type StandInTenant = typeof acme;

export interface TestServer {
  readonly postgres: PostgresServer;
  /** Where the data plane connects: straight to the server, or to whatever stands before it. */
  endpoint(changes?: Partial<Endpoint>): Endpoint;
  admin<T>(work: (connection: ControlConnection) => Promise<T>): Promise<T>;
  /** Restarts after a stop; the port stays. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/** One cluster for a test file, below a folder of its own. */
export async function startServer(parameters: Record<string, string> = {}): Promise<TestServer> {
  const folder = mkdtempSync(join(tmpdir(), 'tenantry-database-'));
  // PostgreSQL refuses root and runs as nobody then, who must be able to pass.
  chmodSync(folder, 0o755);
  const options = {
    base: postgresBase(folder),
    name: 'main',
    port: await stablePort([]),
    parameters: { fsync: 'off', ...parameters },
  };
  let postgres = await startPostgres(options);
  const endpoint = (changes: Partial<Endpoint> = {}): Endpoint => ({
    host: '127.0.0.1',
    port: postgres.port,
    database: 'postgres',
    login: 'app',
    password: async () => changes.login ?? 'app',
    tls: 'off',
    ...changes,
  });
  const server: TestServer = {
    get postgres() {
      return postgres;
    },
    endpoint,
    admin: (work) =>
      withConnection(endpoint({ login: 'postgres', password: async () => postgres.superuserPassword }), work),
    restart: async () => {
      postgres = await startPostgres(options);
    },
    close: async () => {
      await postgres.stop('immediate');
      rmSync(folder, { recursive: true, force: true });
      rmSync(options.base, { recursive: true, force: true });
    },
  };
  await server.admin(async (admin) => {
    await admin.query(standIn);
    for (const tenant of [acme, globex]) {
      await admin.query(tenantTables(tenant.schema));
      await admin.query('insert into tenancy.homes (tenant, schema) values ($1, $2)', [
        tenant.id,
        tenant.schema,
      ]);
    }
  });
  return server;
}

/** A route to `tenant` that knows no other, and counts how it was asked. */
export function routeTo(
  endpoint: Endpoint,
  tenant: StandInTenant = acme,
  epochs: { known: number; fresh: number } = { known: 1, fresh: 1 },
): FindPassage & { requests: { refresh: boolean }[]; refreshes(): number } {
  const requests: { refresh: boolean }[] = [];
  let { known } = epochs;
  const find: FindPassage = async ({ mode, statementMs, refresh }) => {
    requests.push({ refresh });
    if (refresh) known = epochs.fresh;
    return { endpoint, context: `v1.k.d.${tenant.id}.${known}.${mode}.call.${statementMs}.0.00` };
  };
  return Object.assign(find, { requests, refreshes: () => requests.filter(({ refresh }) => refresh).length });
}

export const limits = (changes: Partial<CallLimits> = {}): CallLimits => ({
  mode: 'w',
  deadline: Date.now() + 60_000,
  signal: new AbortController().signal,
  maxRows: 1000,
  maxBytes: 1_000_000,
  roundTrips: 'one',
  ...changes,
});

/** What it fails with. */
export const failure = (promise: Promise<unknown>): Promise<TenantryError> =>
  promise.then(
    () => expect.fail('it succeeded'),
    (error) => error,
  );

/** Statements that wait for it go on when it opens, and not before: so that a fault meets them in the middle. */
export async function closeGate(server: TestServer): Promise<() => Promise<void>> {
  const closed = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  const session = server.admin(async (admin) => {
    await admin.query('select pg_advisory_lock(1)');
    closed.resolve();
    await opened.promise;
  });
  await closed.promise;
  return async () => {
    opened.resolve();
    await session;
  };
}
/** What a statement calls to wait for it. */
export const gate = 'pg_advisory_xact_lock(1)';
