import type { ControlConnection } from '../database/connect.ts';
import { owningStrategies } from '../isolation/isolation.ts';
import { silentMinutes } from '../lifecycle/operations.ts';
import { type HomeState, type Strategy, strategies, type TenantId } from '../tenant/tenant.ts';
import { canarySlugs } from './canaries.ts';

/** A server, as the control plane reaches it. */
export interface Server {
  readonly clusterId: string;
  readonly kind: 'shared' | 'dedicated';
  /** Where calls go: the proxy of a shared one. */
  readonly callHost: string;
  readonly callPort: number;
  readonly host: string;
  readonly port: number;
  /** Of a shared one: the database that takes new homes. */
  readonly database: string | null;
  readonly databaseId: string | null;
}

/** A home with tables of its own. */
export interface OwnedHome {
  readonly homeId: string;
  readonly tenant: TenantId;
  readonly slug: string;
  readonly strategy: Strategy;
  readonly clusterId: string;
  readonly database: string;
  readonly databaseId: string;
  readonly schema: string;
  readonly login: string;
  readonly epoch: number;
  readonly state: HomeState;
}

/** What the catalog says, as far as one run looks. */
export interface Picture {
  /** With a home of a tenant's. */
  readonly strategies: readonly Strategy[];
  readonly servers: readonly Server[];
  /** Ids of tenants and homes that an operation is changing: what is half there is no finding. */
  readonly busy: ReadonlySet<string>;
  /** The canaries', and the next of the others by their ids. */
  readonly homes: readonly OwnedHome[];
}

export async function readPicture(catalog: ControlConnection, after: string, size: number): Promise<Picture> {
  const used = await catalog.query<{ strategy: Strategy }>(
    `select distinct h.strategy from catalog.homes h join catalog.tenants t using (tenant_id) where h.state <> 'moved' and t.slug <> all ($1)`,
    [canarySlugs],
  );
  const servers = await catalog.query<Server>(
    `select cluster_id as "clusterId", kind, host as "callHost", port as "callPort", admin_host as host, admin_port as port, database_name as database, database_id as "databaseId"
       from catalog.clusters order by kind desc, created_at`,
  );
  const canaries = await catalog.query<OwnedHome>(ownedHomes('t.slug = any ($2)'), [
    owningStrategies,
    canarySlugs,
  ]);
  // From there to the end, and on from the beginning.
  const sample = await catalog.query<OwnedHome>(
    `${ownedHomes('t.slug <> all ($2)')} order by h.home_id <= $3, h.home_id limit $4`,
    [owningStrategies, canarySlugs, after, size],
  );
  return {
    strategies: strategies.filter((strategy) => used.rows.some((row) => row.strategy === strategy)),
    servers: servers.rows,
    busy: await readBusy(catalog),
    homes: [...canaries.rows, ...sample.rows],
  };
}

/** Ids of tenants and homes that an operation is changing now. */
export async function readBusy(catalog: ControlConnection): Promise<ReadonlySet<string>> {
  const { rows } = await catalog.query<{ tenant: string | null; home: string | null }>(
    // One that waits (an offboarding does, for weeks) or is dead changes nothing now.
    `select o.tenant_id as tenant, o.input ->> 'homeId' as home from catalog.operations o
      where o.state = 'running' and (o.started_at > now() - make_interval(mins => $1) or exists (
              select from catalog.operation_steps s where s.operation_id = o.operation_id
                 and greatest(s.started_at, s.finished_at) > now() - make_interval(mins => $1)))`,
    [silentMinutes],
  );
  return new Set(rows.flatMap(({ tenant, home }) => [tenant, home].filter((id) => id !== null)));
}

const ownedHomes = (condition: string) => `
  select h.home_id as "homeId", h.tenant_id as tenant, t.slug, h.strategy, h.cluster_id as "clusterId", h.database_name as database,
         h.database_id as "databaseId", h.schema_name as schema, h.login, h.epoch::int, h.state
    from catalog.homes h join catalog.tenants t on t.home_id = h.home_id
   where h.strategy = any ($1::text[]) and h.state in ('open', 'read_only', 'fenced', 'suspended') and ${condition}`;

/** Every home of one database, with the login that it is for; also one that a move has left, whose way back that login is. */
export async function homesIn(
  catalog: ControlConnection,
  clusterId: string,
  database: string,
): Promise<{ schema: string; login: string; strategy: Strategy }[]> {
  const { rows } = await catalog.query<{ schema: string; login: string; strategy: Strategy }>(
    `select distinct schema_name as schema, login, strategy from catalog.homes
      where cluster_id = $1 and database_name = $2`,
    [clusterId, database],
  );
  return rows;
}
