import { type ControlConnection, withConnection } from '../database/connect.ts';
import type { MasterKeys } from '../isolation/context.ts';
import { asRole } from '../isolation/homes.ts';
import { type Home, isolations } from '../isolation/isolation.ts';
import { adminEndpoint, type ControlPlane } from '../lifecycle/control-plane.ts';
import { sharedHome } from '../migrations/migrator.ts';
import { type Strategy, strategies } from '../tenant/tenant.ts';
import { auditDatabase } from './audit-database.ts';
import { type AuditRow, auditServer, sessionLocks } from './audit-server.ts';
import { type Check, finding, type HealthFinding } from './findings.ts';
import { homesIn, type OwnedHome, type Picture, type Server } from './picture.ts';
import { compareHomes, compareNames } from './reality.ts';
import { auditRuntime, type Runtimes } from './runtime.ts';

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
  readonly findings: readonly HealthFinding[];
  readonly sessionLocks: number;
  /** Ids of the homes that were looked at. */
  readonly looked: readonly string[];
  readonly runtimes: Runtimes;
}

/** One statement of an audit takes milliseconds; a server that needs this long, ms, has other troubles. */
const statementMs = 5_000;

/** As tenancy_provisioner, in one database: everything that the catalogs say about it. Changes nothing, waits for no lock. */
export async function visit(
  plane: Pick<ControlPlane, 'credentials' | 'tls'>,
  catalog: ControlConnection,
  picture: Picture,
  keys: MasterKeys | undefined,
  { server, database, databaseId, isShared, homes }: Place,
  known: Runtimes,
  /** Unix time, ms: no further home is begun after it. */
  until: number,
): Promise<Visit> {
  const { clusterId, host, port } = server;
  const here = await homesIn(catalog, clusterId, database);
  const used = strategies.filter((strategy) => here.some((home) => home.strategy === strategy));
  const affected = used.length > 0 ? used : picture.strategies;
  const at = { clusterId, database, busy: picture.busy };
  return withConnection(
    adminEndpoint(plane as ControlPlane, { clusterId, host, port, database }),
    async (connection) => {
      await connection.query(`set statement_timeout = ${statementMs}; set lock_timeout = '100ms'`);
      const audited = await auditDatabase(connection, here);
      const findings: HealthFinding[] = [];
      let locks = 0;
      if (isShared || server.kind === 'dedicated') {
        audited.push(...(await auditServer(connection)));
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
      for (const row of audited) findings.push(ofRow(row, strategiesOf(row.login, here, affected)));
      findings.push(...(await compareHomes(catalog, connection, at)));
      const runtime = await auditRuntime(
        connection,
        keys,
        { database, databaseId, isShared },
        affected,
        known,
      );
      findings.push(...runtime.findings);
      if (isShared) {
        const rows = await check(connection, sharedHome);
        findings.push(...rows.map((row) => ofRow({ ...row, check: 'tables', login: null }, ['rls'])));
      }
      const looked: string[] = [];
      for (const home of homes) {
        if (Date.now() > until) break;
        looked.push(home.homeId);
        if (picture.busy.has(home.tenant)) continue;
        const rows = [...(await check(connection, home)), ...(await foreignRows(connection, home))];
        findings.push(...rows.map((row) => ofRow({ ...row, check: 'tables', login: null }, [home.strategy])));
      }
      return { findings, sessionLocks: locks, looked, runtimes: runtime.runtimes };
    },
  );
}

const ofRow = ({ check, object, finding: text, remedy }: AuditRow, of: readonly Strategy[]) =>
  finding(check as Check, of, object, text, remedy);

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

const check = (connection: ControlConnection, home: Home) =>
  asRole(connection, 'tenancy_owner', () => isolations[home.strategy].check(connection, home));

/** Rows in a home's own tables that name another tenant: nothing but the ends of the key's index is read. */
async function foreignRows(connection: ControlConnection, { schema, tenant }: OwnedHome) {
  return asRole(connection, 'tenancy_owner', async () => {
    const { rows: tables } = await connection.query<{ name: string }>(
      `select t.relation::text as name from tenancy.home_tables($1) t join pg_catalog.pg_attribute a on a.attrelid = t.relation
        where a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype and not a.attisdropped and not t.is_partition`,
      [schema],
    );
    if (tables.length === 0) return [];
    const any = tables.map(
      ({ name }, index) =>
        `select ${index} as at where exists (select from ${name} where tenant_id < $1) or exists (select from ${name} where tenant_id > $1)`,
    );
    const { rows } = await connection.query<{ at: number }>(any.join(' union all '), [tenant]);
    return rows.map(({ at }) => ({
      object: tables[at]!.name,
      finding: 'holds rows of another tenant',
      remedy: 'find out how they came there, and delete them',
    }));
  });
}
