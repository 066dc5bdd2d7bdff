import { type ControlConnection, withConnection } from '../database/connect.ts';
import { asRole } from '../isolation/homes.ts';
import { type Finding, type Home, isolations, sharedHome } from '../isolation/isolation.ts';
import { adminEndpoint } from '../lifecycle/control-plane.ts';
import { type Strategy, strategies } from '../tenant/tenant.ts';
import { auditDatabase, auditGrants } from './audit-database.ts';
import { type AuditRow, auditServer, sessionLocks } from './audit-server.ts';
import type { ConnectionFacts } from './budget.ts';
import { finding, type HealthFinding, type Risk } from './findings.ts';
import { homesIn, type OwnedHome, type Server } from './picture.ts';
import { compareHomes, compareIds, compareNames } from './reality.ts';
import { auditFunctions, auditKeys, auditPass, type Passes, type Runtimes } from './runtime.ts';
import { auditSecretsOf } from './secrets.ts';
import type { Run } from './watch.ts';

/** One database to look into, and the homes in it whose turn it is. */
export interface Place {
  readonly server: Server;
  readonly database: string;
  readonly databaseId: string;
  /** The shared database of its server: shared tables are in it, and the server itself is looked at from it. */
  readonly isShared: boolean;
  readonly homes: readonly OwnedHome[];
}

export interface Visit {
  readonly sessionLocks: number;
  /** Ids of the homes that were looked at. */
  readonly looked: readonly string[];
  readonly runtimes: Runtimes;
  readonly passes: Passes;
}

/** One statement of an audit takes milliseconds; a server that needs this long, ms, has other troubles. */
const statementMs = 5_000;
/** Homes that one statement audits. */
const atOnce = 16;

/** As tenancy_provisioner, in one database: everything that the catalogs say about it. Changes nothing, waits for no lock. */
export async function visit(
  { watch: { plane, connectionFacts }, catalog, picture, keys, known, isLate }: Run,
  { server, database, databaseId, isShared, homes }: Place,
  /** Gets what is found as it is found: what comes after it may fail. */
  findings: HealthFinding[],
): Promise<Visit> {
  const { clusterId, host, port } = server;
  const here = await homesIn(catalog, clusterId, database);
  const used = strategies.filter((strategy) => here.some((home) => home.strategy === strategy));
  const affected = used.length > 0 ? used : picture.strategies;
  const at = { clusterId, database, busy: picture.busy };
  return withConnection(adminEndpoint(plane, { clusterId, host, port, database }), async (connection) => {
    await connection.query(`set statement_timeout = ${statementMs}; set lock_timeout = '100ms'`);
    const tell = (rows: readonly AuditRow[]) => {
      for (const row of rows) findings.push(ofRow(row, strategiesOf(row.login, here, affected)));
    };
    tell(await auditDatabase(connection, here));
    let locks = 0;
    if (isShared || server.kind === 'dedicated') {
      tell(await auditServer(connection));
      // Of other shared clusters the budget says nothing.
      if (connectionFacts && (server.kind === 'dedicated' || clusterId === plane.catalog.clusterId))
        findings.push(...(await compareConnections(connection, server, connectionFacts)));
      const held = await sessionLocks(connection);
      locks = held.length;
      for (const { login, database, pid } of held)
        findings.push(
          finding(
            'session_locks',
            strategiesOf(login, here, affected),
            `session ${pid} of ${login} in ${database}`,
            'holds an advisory lock outside any transaction',
            'find out whose it is (pg_stat_activity) and end it',
          ),
        );
      findings.push(...(await compareNames(catalog, connection, at)));
    }
    findings.push(...(await compareHomes(catalog, connection, at)));
    findings.push(...(await compareIds(catalog, { clusterId, database, databaseId })));
    const runtime = await auditFunctions(connection, 'tenancy', database, affected, known.runtimes);
    findings.push(...runtime.findings);
    if (keys)
      findings.push(...(await auditKeys(connection, keys, { database, databaseId, isShared }, affected)));
    let passes: Passes = {};
    if (isShared) {
      const pass = await auditPass(connection, { database, databaseId }, ['rls'], known.passes);
      findings.push(...pass.findings);
      passes = pass.passes;
      const rows = await check(connection, [sharedHome]);
      findings.push(...rows.map((row) => ofTables(row, sharedHome, ['rls'])));
      findings.push(...(await missingGrants(connection, [sharedHome], 'service')));
    }
    const looked: string[] = [];
    // However late it is, the first few have their turn.
    for (let from = 0; from < homes.length && (from === 0 || !isLate()); from += atOnce) {
      const some = homes.slice(from, from + atOnce);
      looked.push(...some.map(({ homeId }) => homeId));
      const atRest = some.filter(({ tenant }) => !picture.busy.has(tenant));
      await auditHomes(connection, atRest, findings);
      findings.push(...(await auditSecretsOf({ plane }, catalog, server, atRest)));
    }
    return { sessionLocks: locks, looked, runtimes: runtime.runtimes, passes };
  });
}

/** The budget counts with a new value from its deployment on; the server has it only after a reboot. */
async function compareConnections(
  connection: ControlConnection,
  { kind, host }: Server,
  facts: ConnectionFacts,
): Promise<HealthFinding[]> {
  const { rows } = await connection.query<{ max: number }>(
    "select current_setting('max_connections')::int as max",
  );
  const [max, counted] = [rows[0]!.max, facts[kind].maxConnections];
  if (max === counted) return [];
  const setting = kind === 'shared' ? 'cluster.maxConnections' : 'dedicated.maxConnections';
  return [
    finding(
      'server',
      [],
      `max_connections of ${host}`,
      `is ${max}, where the connection budget counts ${counted}`,
      `reboot the server, for which a changed parameter waits; or set ${setting} to what it has, and deploy`,
    ),
  ];
}

const ofRow = ({ check, object, finding: text, remedy }: AuditRow, of: readonly Strategy[]) =>
  finding(check, of, object, text, remedy);

/** The audit speaks to whoever writes a migration; at night it is a running system that has to be mended. */
function ofTables(
  { object, finding: text, remedy }: Finding,
  home: Home,
  of: readonly Strategy[],
): HealthFinding {
  const { schema, tenant, login, strategy } = home;
  const adds = isolations[strategy].ownsTables
    ? `tenancy.protect_owned('${schema}', '${tenant}', '${login}')`
    : `tenancy.protect_shared('${schema}')`;
  return finding(
    'tables',
    of,
    object,
    text,
    `${remedy}; as tenancy_owner, \`select ${adds}\` adds what is missing`,
  );
}

/** Whose wall it is that a login's rights make a hole in. */
function strategiesOf(
  login: string | null,
  here: readonly { login: string; strategy: Strategy }[],
  affected: readonly Strategy[],
): readonly Strategy[] {
  if (login === 'tenancy_app') return ['rls'];
  const home = here.find((each) => each.login === login);
  return home ? [home.strategy] : affected;
}

const check = (connection: ControlConnection, homes: readonly Home[]) =>
  asRole(connection, 'tenancy_owner', () => isolations[homes[0]!.strategy].check(connection, homes));

/** Calls of these homes, all of one strategy, fail for want of a right. */
async function missingGrants(
  connection: ControlConnection,
  homes: readonly Home[],
  risk: Risk,
): Promise<HealthFinding[]> {
  const rows = await auditGrants(connection, homes);
  return rows.map(({ object, finding: text, remedy }) =>
    finding('grants', [homes[0]!.strategy], object, text, `as tenancy_owner: ${remedy}`, risk),
  );
}

/** Tables of homes of their own: what the catalogs say about them, and whose rows are in them. `findings`: as for `visit`. */
async function auditHomes(
  connection: ControlConnection,
  homes: readonly OwnedHome[],
  findings: HealthFinding[],
): Promise<void> {
  for (const strategy of strategies) {
    const alike = homes.filter((home) => home.strategy === strategy);
    if (alike.length === 0) continue;
    for (const look of [check, foreignRows])
      for (const row of await look(connection, alike)) {
        const home = alike.find(({ schema }) => schema === row.schema)!;
        findings.push(ofTables(row, home, [strategy]));
      }
    findings.push(...(await missingGrants(connection, alike, 'none')));
  }
}

/** Rows in homes' own tables that name another tenant: nothing but the ends of the key's index is read. */
async function foreignRows(connection: ControlConnection, homes: readonly OwnedHome[]) {
  return asRole(connection, 'tenancy_owner', async () => {
    const { rows: tables } = await connection.query<{ name: string; tenant: number; schema: string }>(
      `select t.relation::text as name, h.at::int as tenant, h.schema
         from unnest($1::name[]) with ordinality h(schema, at), tenancy.home_tables(h.schema) t, pg_catalog.pg_attribute a
        where a.attrelid = t.relation and a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype and not a.attisdropped and not t.is_partition`,
      [homes.map(({ schema }) => schema)],
    );
    if (tables.length === 0) return [];
    const any = tables.map(
      ({ name, tenant }, index) =>
        `select ${index} as at where exists (select from ${name} where tenant_id < ($1::uuid[])[${tenant}]) or exists (select from ${name} where tenant_id > ($1::uuid[])[${tenant}])`,
    );
    const { rows } = await connection.query<{ at: number }>(any.join(' union all '), [
      homes.map(({ tenant }) => tenant),
    ]);
    return rows.map(({ at }) => ({
      schema: tables[at]!.schema,
      object: tables[at]!.name,
      finding: 'holds rows of another tenant',
      remedy: 'find out how they came there, and delete them',
    }));
  });
}
