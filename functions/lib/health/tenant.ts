import { type ControlConnection, withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { connectionsInUse } from '../isolation/connections.ts';
import { asRole } from '../isolation/homes.ts';
import { isolations, sharedHome } from '../isolation/isolation.ts';
import { type ControlPlane, endpointOf } from '../lifecycle/control-plane.ts';
import type { HomeState, Strategy, TenantId } from '../tenant/tenant.ts';
import type { Check, HealthFinding } from './findings.ts';
import type { HealthRecord } from './record.ts';
import { reasonOf } from './watch.ts';

/** Where a tenant lives, for a look at it. */
export interface TenantHome {
  readonly tenant: TenantId;
  readonly strategy: Strategy;
  readonly homeId: string;
  readonly schema: string;
  readonly login: string;
  readonly epoch: number;
  readonly state: HomeState;
  readonly database: string;
  readonly clusterId: string;
  readonly adminHost: string;
  readonly adminPort: number;
}

/**
 * One tenant's own health. Verdicts are `ok` or say what is wrong; of the three that belong to a strategy, those of the
 * other strategies are null.
 */
export interface TenantHealth {
  /** `rls`: the shared tables' policies, and what the canaries have tried of them. */
  readonly rls_context: string | null;
  /** `schema`: its schema, the login that leads there, and the audit of its tables. */
  readonly schema_routing: string | null;
  /** `database`: its database takes connections of its login. */
  readonly tenant_pools: string | null;
  /** Connections that its server has open for its login now; of `rls`, all such tenants together. Null: not reachable. */
  readonly active_pool_count: number | null;
  /** The catalog and the home agree. */
  readonly control_plane: string;
  /** What its server and its login may have, and what is taken. Null: not reachable. */
  readonly connection_budget: {
    readonly max_connections: number;
    readonly connections: number;
    /** -1: no limit of its own. */
    readonly login_limit: number;
  } | null;
}

/** Tried by the canaries of the strategy, in the last run. */
const walls: readonly Check[] = [
  ...(['own_rows', 'foreign_rows', 'foreign_writes', 'no_context'] as const),
  ...(['forged_context', 'expired_context', 'foreign_home', 'data_path'] as const),
];

/** Looks at a tenant's home as it is now, as tenancy_provisioner and without reading a row of it. */
export async function tenantHealth(
  plane: ControlPlane,
  home: TenantHome,
  record: HealthRecord | undefined,
): Promise<TenantHealth> {
  const { strategy } = home;
  const field = { rls: 'rls_context', schema: 'schema_routing', database: 'tenant_pools' }[strategy];
  const none = { rls_context: null, schema_routing: null, tenant_pools: null };
  const tried = (record?.report.findings ?? []).filter(
    ({ check, strategies }) => walls.includes(check) && strategies.includes(strategy),
  );
  try {
    return await withConnection(
      // A new connection: whether there are any to be had is part of what is asked.
      endpointOf({ ...plane, kept: undefined }, home),
      async (connection) => {
        const { wrong, differs, ...figures } = await lookAt(connection, home);
        return {
          ...none,
          [field]: verdict([...wrong, ...tried.map(sentence)]),
          control_plane: verdict(differs),
          ...figures,
        };
      },
    );
  } catch (error) {
    if (!(error instanceof ConnectFailure)) throw error;
    const text = `its database can't be reached: ${reasonOf(error)}`;
    return { ...none, [field]: text, active_pool_count: null, control_plane: 'ok', connection_budget: null };
  }
}

const verdict = (wrong: readonly string[]) => (wrong.length === 0 ? 'ok' : wrong.join('; '));
const sentence = ({ object, finding }: Pick<HealthFinding, 'object' | 'finding'>) => `${object} ${finding}`;

async function lookAt(connection: ControlConnection, home: TenantHome) {
  const { homeId, login, schema, epoch, state, strategy } = home;
  const { rows } = await connection.query<{
    limit: number | null;
    can_login: boolean | null;
    has_schema: boolean;
    safe_path: boolean;
    theirs: number;
    all: number;
    max: number;
  }>(
    `select r.rolconnlimit as limit, r.rolcanlogin as can_login,
            exists (select from pg_namespace where nspname = $2) as has_schema,
            exists (select from pg_db_role_setting s where s.setrole = r.oid and s.setdatabase = 0 and 'search_path=""' = any (s.setconfig)) as safe_path,
            (select count(*)::int from pg_stat_activity where usename = $1) as theirs,
            ${connectionsInUse} as all,
            current_setting('max_connections')::int as max
       from (select) one left join pg_roles r on r.rolname = $1`,
    [login, schema],
  );
  const { limit, can_login, has_schema, safe_path, theirs, all, max } = rows[0]!;
  const known = await asRole(connection, 'tenancy_keeper', () =>
    connection.query('select epoch::int, state, login, schema_name from tenancy.homes where home_id = $1', [
      homeId,
    ]),
  );
  const there = known.rows[0];
  const ours = `${state} at epoch ${epoch}, ${login} in ${schema}`;
  const described = there && `${there.state} at epoch ${there.epoch}, ${there.login} in ${there.schema_name}`;
  const wrong: string[] = [];
  if (can_login === null) wrong.push(`the login ${login} is not there`);
  else if (!can_login) wrong.push(`the login ${login} is not let in`);
  if (can_login !== null && !safe_path) wrong.push(`the login ${login} has a search path of its own`);
  if (!has_schema) wrong.push(`the schema ${schema} is not there`);
  const audited = isolations[strategy].ownsTables ? home : sharedHome;
  const findings = await asRole(connection, 'tenancy_owner', () =>
    isolations[strategy].check(connection, [audited]),
  );
  wrong.push(...findings.map(sentence));
  return {
    wrong,
    differs:
      described === ours ? [] : [`the catalog says ${ours}; its database says ${described ?? 'nothing'}`],
    active_pool_count: theirs,
    connection_budget: { max_connections: max, connections: all, login_limit: limit ?? -1 },
  };
}
