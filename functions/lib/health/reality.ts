import type { ControlConnection } from '../database/connect.ts';
import { asRole } from '../isolation/homes.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { finding, type HealthFinding } from './findings.ts';
import { type Picture, readBusy } from './picture.ts';

/** How a home is known to the catalog, and how to its own database. */
interface Known {
  readonly home: string;
  readonly tenant: string;
  readonly slug: string | null;
  readonly strategy: Strategy | null;
  /** Whose, where and as whom: never different, whatever is going on. */
  readonly identity: string;
  /** Epoch and state: a change writes one side after the other. */
  readonly standing: string;
}

/** A change of a home is done on both sides within this time, ms. */
const settledMs = 250;

const identity = `concat_ws(' ', h.tenant_id, h.login, h.schema_name)`;
const standing = `concat_ws(' ', h.state, 'at epoch', h.epoch)`;
/** Sixteen groups by the first digit: thousands of homes are compared by as many sums. */
const group = 'left(h.home_id::text, 1)';
const sums = (from: string) => `
  select ${group} as digit, md5(string_agg(concat_ws(' ', h.home_id, ${identity}, ${standing}), ',' order by h.home_id)) as sum
    from ${from} group by 1`;
const inCatalog = `catalog.homes h join catalog.tenants t using (tenant_id) where h.cluster_id = $1 and h.database_name = $2 and h.state <> 'moved'`;
const inDatabase = `tenancy.homes h where h.state <> 'moved'`;

/** The catalog's homes in one database beside those that the database itself admits. */
export async function compareHomes(
  catalog: ControlConnection,
  connection: ControlConnection,
  { clusterId, database }: { clusterId: string; database: string },
): Promise<HealthFinding[]> {
  const place = [clusterId, database];
  const keeper = <R>(text: string, values: unknown[] = []) =>
    asRole(connection, 'tenancy_keeper', () => connection.query<R>(text, values));
  const [ours, theirs] = await Promise.all([
    catalog.query<{ digit: string; sum: string }>(sums(inCatalog), place),
    keeper<{ digit: string; sum: string }>(sums(inDatabase)),
  ]);
  const sumOf = (rows: { digit: string; sum: string }[], digit: string) =>
    rows.find((row) => row.digit === digit)?.sum;
  const unequal = [...'0123456789abcdef'].filter(
    (digit) => sumOf(ours.rows, digit) !== sumOf(theirs.rows, digit),
  );
  if (unequal.length === 0) return [];

  const look = async () => {
    const [ours, theirs] = await Promise.all([
      catalog.query<Known>(
        `select h.home_id as home, h.tenant_id as tenant, t.slug, h.strategy, ${identity} as identity, ${standing} as standing
           from ${inCatalog} and ${group} = any ($3)`,
        [...place, unequal],
      ),
      keeper<Known>(
        `select h.home_id as home, h.tenant_id as tenant, null as slug, null as strategy, ${identity} as identity, ${standing} as standing
           from ${inDatabase} and ${group} = any ($1)`,
        [unequal],
      ),
    ]);
    // Asked last: an operation that began meanwhile (this very run's, for its canaries) stands here before it changes a home.
    const begun = await readBusy(catalog);
    const atRest = ({ home, tenant }: Known) => !begun.has(home) && !begun.has(tenant);
    return differences(ours.rows.filter(atRest), theirs.rows.filter(atRest), database);
  };
  const first = await look();
  if (first.length === 0) return [];
  await new Promise((resolve) => setTimeout(resolve, settledMs));
  const second = await look();
  return second.filter((now) =>
    first.some((then) => then.object === now.object && then.finding === now.finding),
  );
}

function differences(ours: readonly Known[], theirs: readonly Known[], database: string): HealthFinding[] {
  const there = new Map(theirs.map((known) => [known.home, known]));
  const here = new Set(ours.map(({ home }) => home));
  const found: HealthFinding[] = [];
  for (const { home, slug, strategy, identity, standing } of ours) {
    const other = there.get(home);
    const object = `home ${home} of ${slug} in ${database}`;
    const why = `npm run tenants -- why ${slug}`;
    const of = strategy === null ? [] : [strategy];
    if (other === undefined)
      found.push(
        finding(
          'homes',
          of,
          object,
          'is in the catalog, but its database does not know it: calls are refused',
          why,
        ),
      );
    else if (other.identity !== identity)
      found.push(
        finding(
          'homes',
          of,
          object,
          `is ${identity} in the catalog, ${other.identity} in its database`,
          'write into tenancy.homes what the catalog says',
          'isolation',
        ),
      );
    else if (other.standing !== standing)
      found.push(
        finding('homes', of, object, `is ${standing} in the catalog, ${other.standing} in its database`, why),
      );
  }
  for (const { home } of theirs)
    if (!here.has(home))
      found.push(
        finding(
          'orphans',
          [],
          `home ${home} in ${database}`,
          'is admitted by its database, but the catalog does not know it',
          'delete it from tenancy.homes, with its schema and login',
        ),
      );
  return found;
}

/** Homes that the catalog has in another database than theirs: contexts are signed for that one, and theirs refuses them. */
export async function compareIds(
  catalog: ControlConnection,
  { clusterId, database, databaseId }: { clusterId: string; database: string; databaseId: string },
): Promise<HealthFinding[]> {
  const { rows } = await catalog.query<{ home: string; slug: string; strategy: Strategy; id: string }>(
    `select h.home_id as home, t.slug, h.strategy, h.database_id as id from ${inCatalog} and h.database_id <> $3 limit 100`,
    [clusterId, database, databaseId],
  );
  return rows.map(({ home, slug, strategy, id }) =>
    finding(
      'homes',
      [strategy],
      `home ${home} of ${slug} in ${database}`,
      `is in a database with the id ${id} in the catalog, and its database has ${databaseId}: calls are refused`,
      'write into catalog.homes what its database has',
    ),
  );
}

/** What a login lacks to enter its home: both come with a group, or with a grant on its own database. */
const entries = `
  select h.at::int, l.lacks
    from unnest($1::name[], $2::name[]) with ordinality h(login, database, at)
    join pg_catalog.pg_roles r on r.rolname = h.login join pg_catalog.pg_database d on d.datname = h.database
   cross join lateral (values
     ('may not connect to database ' || d.datname, has_database_privilege(r.oid, d.oid, 'connect')),
     ('is no member of tenancy_tenants', r.rolname !~ '^t_' or pg_has_role(r.oid, 'tenancy_tenants', 'usage'))) l(lacks, has)
   where not l.has`;

/** What a server has by our names, beside what the catalog has there: logins, databases and, in this one, schemas. */
export async function compareNames(
  catalog: ControlConnection,
  connection: ControlConnection,
  { clusterId, database, busy }: { clusterId: string; database: string } & Pick<Picture, 'busy'>,
): Promise<HealthFinding[]> {
  const [wanted, there] = await Promise.all([
    catalog.query<{
      slug: string;
      strategy: Strategy;
      login: string;
      schema: string;
      database: string;
      tenant: string;
    }>(
      // Of the shared tables one home stands for all.
      `select distinct on (h.database_name, h.schema_name) t.slug, h.strategy, h.login, h.schema_name as schema, h.database_name as database, h.tenant_id as tenant
         from catalog.homes h join catalog.tenants t using (tenant_id) where h.cluster_id = $1 and h.state not in ('provisioning', 'moved')`,
      [clusterId],
    ),
    connection.query<{ kind: 'login' | 'database' | 'schema'; name: string; open: boolean }>(
      `select 'login' as kind, rolname as name, rolcanlogin and rolconnlimit <> 0 and coalesce(rolvaliduntil > now(), true) as open from pg_catalog.pg_roles where rolname ~ '^t_[0-9a-f]{32}$' or rolname = 'tenancy_app'
       union all select 'database', datname, datallowconn from pg_catalog.pg_database where not datistemplate
       union all select 'schema', nspname, true from pg_catalog.pg_namespace where nspname !~ '^pg_'`,
    ),
  ]);
  const existing = new Map(there.rows.map(({ kind, name, open }) => [`${kind} ${name}`, open]));
  const found: HealthFinding[] = [];
  for (const home of wanted.rows) {
    if (busy.has(home.tenant)) continue;
    const missing = (kind: 'login' | 'database' | 'schema', name: string) => {
      const open = existing.get(`${kind} ${name}`);
      if (open) return;
      const text = open === undefined ? 'is not there' : 'lets nobody in';
      found.push(
        finding(
          'homes',
          [home.strategy],
          `${kind} ${name} of ${home.slug}`,
          text,
          `npm run tenants -- why ${home.slug}`,
        ),
      );
    };
    missing('database', home.database);
    missing('login', home.login);
    if (home.database === database) missing('schema', home.schema);
  }
  const lacking = await connection.query<{ at: number; lacks: string }>(entries, [
    wanted.rows.map(({ login }) => login),
    wanted.rows.map(({ database }) => database),
  ]);
  for (const { at, lacks } of lacking.rows) {
    const { tenant, slug, strategy, login } = wanted.rows[at - 1]!;
    if (busy.has(tenant)) continue;
    const why = `npm run tenants -- why ${slug}`;
    found.push(finding('homes', [strategy], `login ${login} of ${slug}`, `${lacks}: calls are refused`, why));
  }
  const known = new Set(wanted.rows.flatMap(({ login, schema, database }) => [login, schema, database]));
  const inFlight = new Set([...busy].map((id) => id.replaceAll('-', '')));
  // Asked last: what was begun meanwhile has left its name here before it made anything there.
  const provisioning = await catalog.query<{ home: string }>(
    `select home_id::text as home from catalog.homes where cluster_id = $1 and state in ('provisioning', 'moved')
     union all
     select input ->> 'homeId' from catalog.operations
      where input ? 'homeId' and (state = 'running' or finished_at > now() - interval '2 minutes')`,
    [clusterId],
  );
  for (const { home } of provisioning.rows) inFlight.add(home.replaceAll('-', ''));
  for (const { kind, name } of there.rows) {
    const id = /^(?:t|tenant|home)_([0-9a-f]{32})$/.exec(name)?.[1];
    if (id === undefined || known.has(name) || inFlight.has(id)) continue;
    const remedy = `drop ${kind === 'login' ? 'role' : kind} ${name}, when you know what it is from`;
    found.push(
      finding(
        'orphans',
        [],
        `${kind} ${name}`,
        'is there, but the catalog knows no home of that name',
        remedy,
      ),
    );
  }
  return found;
}
