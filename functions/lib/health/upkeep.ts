import { instanceName, type KnownInstance } from '../aws/rds.ts';
import type { ControlConnection } from '../database/connect.ts';
import { loginSecretName } from '../isolation/credentials.ts';
import { isolations } from '../isolation/isolation.ts';
import { holdsPair } from '../lifecycle/keys.ts';
import { releaseFences } from '../lifecycle/move-fence.ts';
import { silentMinutes } from '../lifecycle/operations.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import { canarySlugs } from './canaries.ts';
import { finding, type HealthFinding } from './findings.ts';
import { type Picture, readBusy, type Server } from './picture.ts';
import type { Watch } from './watch.ts';

/** More names than this are looked at in sixteenths, one a run. */
const secretsAtOnce = 300;
const shown = 20;

/** Operations that failed for good, and such that nobody works on any more; not imports whose files were refused. */
export async function auditOperations(
  catalog: ControlConnection,
): Promise<{ failed: number; findings: HealthFinding[] }> {
  const { rows } = await catalog.query<{
    id: string;
    kind: string;
    slug: string | null;
    state: string;
    step: string | null;
    reason: string | null;
    strategy: Strategy | null;
  }>(
    `select o.operation_id as id, o.kind, t.slug, t.strategy, o.state, o.failed_step as step, o.reason
       from (select distinct on (kind, tenant_id) * from catalog.operations order by kind, tenant_id, started_at desc) o
       left join catalog.tenants t using (tenant_id)
      -- An offboarding may fail when its tenant is gone already, at its own check.
      where (coalesce(t.status, '') <> 'offboarded' or o.kind = 'offboard') and (o.state = 'failed' and o.result -> 'refused' is null
             or o.state = 'running'
             -- A paused move has no execution. An offboarding waits for its grace period first.
             and not exists (select from catalog.moves m where m.operation_id = o.operation_id and m.paused_at is not null)
             and o.started_at < now() - make_interval(mins => $1, secs => coalesce((o.input ->> 'graceSeconds')::float8, 0))
             and not exists (select from catalog.operation_steps s where s.operation_id = o.operation_id
                                and greatest(s.started_at, s.finished_at) > now() - make_interval(mins => $1)))
      order by o.started_at desc`,
    [silentMinutes],
  );
  const findings = rows.slice(0, shown).map(({ id, kind, slug, state, step, reason, strategy }) => {
    const text =
      state === 'failed'
        ? `failed at ${step}: ${reason}`
        : `is running, but nothing has happened for ${silentMinutes} minutes`;
    const saysWhy = slug !== null && kind !== 'export' && kind !== 'import';
    const run = `npm run tenants -- ${saysWhy ? `why ${slug}` : `operations ${id}`}`;
    return finding('operations', strategy ? [strategy] : [], `${kind} ${slug ?? id}`, text, run);
  });
  return { failed: rows.filter(({ state }) => state === 'failed').length, findings };
}

/** Tenants whose writers a move keeps out while nobody works on it: they are let in again here and now. */
export async function auditMoves(
  { plane }: Pick<Watch, 'plane'>,
  catalog: ControlConnection,
  now: number,
): Promise<HealthFinding[]> {
  const released = await releaseFences(plane, catalog, now);
  return released.map(({ slug, reason }) =>
    finding(
      'operations',
      [],
      `move of ${slug}`,
      reason === undefined
        ? 'kept its writers out while nobody worked on it: they were let in again'
        : `its home could not be asked whether it keeps writers out: ${reason}`,
      `npm run tenants -- why ${slug}`,
    ),
  );
}

/** Tenants whose entries in the catalog contradict each other: nothing that goes on leaves them so. */
export async function auditTenants(catalog: ControlConnection): Promise<HealthFinding[]> {
  const { rows } = await catalog.query<{
    check: 'homes' | 'canaries';
    slug: string;
    strategy: Strategy;
    text: string;
    isolation: boolean;
  }>(
    `select 'homes' as check, t.slug, t.strategy, case when h.state is null then format('is %s and has no home', t.status) else format('is %s, its home %s', t.status, h.state) end as text, false as isolation
       from catalog.tenants t left join catalog.homes h on h.home_id = t.home_id
      where not exists (select from catalog.operations o where o.tenant_id = t.tenant_id and o.state = 'running')
        and case t.status when 'active' then coalesce(h.state, '') not in ('open', 'read_only', 'fenced')
                          when 'suspended' then coalesce(h.state, '') <> 'suspended' else false end
     union all
     select 'homes', t.slug, t.strategy, format('is %s, its home %s', t.strategy, h.strategy), false
       from catalog.tenants t join catalog.homes h on h.home_id = t.home_id
      where t.strategy <> h.strategy and not exists (select from catalog.operations o where o.tenant_id = t.tenant_id and o.state = 'running')
     union all
     -- Shared tables apart, a schema and a login are one home's.
     select 'homes', t.slug, t.strategy, format('has its home in schema %s of %s with another tenant', h.schema_name, h.database_name), true
       from catalog.homes h join catalog.tenants t using (tenant_id)
      where h.strategy <> 'rls' and h.state <> 'moved' and exists (
              select from catalog.homes o where o.cluster_id = h.cluster_id and o.database_name = h.database_name and o.home_id <> h.home_id
                 and o.state <> 'moved' and o.tenant_id <> h.tenant_id and (o.schema_name = h.schema_name or o.login = h.login))
     union all
     select 'canaries', t.slug, t.strategy, 'is marked as a canary and is none: lists leave it out', false
       from catalog.tenants t where t.is_canary and t.slug <> all ($1)
      order by isolation desc limit 100`,
    [canarySlugs],
  );
  return rows.map(({ check, slug, strategy, text, isolation }) =>
    finding(
      check,
      [strategy],
      `tenant ${slug}`,
      text,
      check === 'homes' ? `npm run tenants -- why ${slug}` : 'set its is_canary in catalog.tenants to false',
      isolation ? 'isolation' : 'none',
    ),
  );
}

/** Homes that a migration has left as they were, and that none has changed since. */
export async function auditQuarantine(
  catalog: ControlConnection,
): Promise<{ quarantined: number; findings: HealthFinding[] }> {
  const { rows } = await catalog.query<{
    target: string;
    slug: string | null;
    strategy: Strategy;
    reason: string | null;
  }>(
    // By way of the runs: each has few that are quarantined, and an index to find them.
    `select distinct q.target_id as target, t.slug, coalesce(t.strategy, 'rls') as strategy, q.reason
       from catalog.migration_runs r
       join catalog.migration_targets q on q.operation_id = r.operation_id and q.state = 'quarantined'
       left join catalog.homes h on h.home_id = q.target_id
       left join catalog.tenants t on t.tenant_id = h.tenant_id
      where (h.home_id is not null or q.kind = 'shared') and not exists (
              select from catalog.migration_runs l join catalog.migration_targets d on d.operation_id = l.operation_id and d.target_id = q.target_id
               where d.state in ('done', 'quarantined') and d.finished_at > q.finished_at)
      order by 1`,
  );
  const findings = rows.slice(0, shown).map(({ target, slug, strategy, reason }) => {
    const object = slug === null ? `the shared tables of cluster ${target}` : `home ${target} of ${slug}`;
    const text = `left out by a migration, serves on with its old tables: ${reason}`;
    return finding('quarantined', [strategy], object, text, 'npm run tenants -- migrate status');
  });
  return { quarantined: rows.length, findings };
}

/** Dedicated instances beside the catalog's clusters. Nothing here wakes one: a stopped one is told by its status. */
export function auditInstances(
  { servers, busy }: Pick<Picture, 'servers' | 'busy'>,
  instances: readonly KnownInstance[],
): { findings: HealthFinding[]; away: Set<string> } {
  const findings: HealthFinding[] = [];
  const away = new Set<string>();
  // One that failed may have no address any more, and is its tenant's all the same.
  const isOf = ({ clusterId, ...server }: Server, { identifier, host, port }: KnownInstance) =>
    (host === server.host && port === server.port) || identifier === instanceName(clusterId);
  for (const server of servers.filter(({ kind }) => kind === 'dedicated')) {
    const instance = instances.find((known) => isOf(server, known));
    if (instance !== undefined && serving.test(instance.status)) continue;
    away.add(server.clusterId);
    if (busy.has(server.clusterId)) continue;
    const object = `instance ${instance?.identifier ?? `at ${server.host}`}`;
    const text = instance ? `is ${instance.status}: its tenant is not served` : 'is not there';
    findings.push(
      finding('instances', ['database'], object, text, 'start it, if nobody has stopped it on purpose'),
    );
  }
  for (const instance of instances) {
    const { identifier, status, tenant } = instance;
    if (tenant === undefined || busy.has(tenant) || status === 'deleting') continue;
    if (servers.some((server) => isOf(server, instance))) continue;
    findings.push(
      finding(
        'orphans',
        [],
        `instance ${identifier}`,
        `is tenant ${tenant}'s, but the catalog knows no cluster there`,
        'delete it, when you know what it is from',
      ),
    );
  }
  return { findings, away };
}

/** Statuses in which an instance answers. */
const serving =
  /^(available|backing-up|configuring-.*|modifying|maintenance|storage-.*|upgrading|renaming|resetting-master-credentials)$/;

/** Tenants' secrets beside the homes that need them; no value is read. */
export async function auditSecrets(
  { plane, secrets }: Pick<Watch, 'plane' | 'secrets'>,
  catalog: ControlConnection,
  { busy, servers }: Pick<Picture, 'busy' | 'servers'>,
  part: number,
): Promise<HealthFinding[]> {
  const { rows } = await catalog.query<{
    homeId: string;
    tenant: TenantId;
    slug: string;
    strategy: Strategy;
    schema: string;
    login: string;
    epoch: number;
    clusterId: string;
    kind: 'shared' | 'dedicated';
  }>(
    `select h.home_id as "homeId", h.tenant_id as tenant, t.slug, h.strategy, h.schema_name as schema, h.login, h.epoch::int, c.cluster_id as "clusterId", c.kind
       from catalog.homes h join catalog.tenants t using (tenant_id) join catalog.clusters c using (cluster_id)
      where h.strategy <> 'rls' and h.state <> 'moved'`,
  );
  const wanted = new Map<string, (typeof rows)[number]>();
  for (const home of rows) {
    const secret = isolations[home.strategy].secret(home, home, plane.loginsUse);
    if (secret) wanted.set(secret.name, home);
  }
  const findings: HealthFinding[] = [];
  const prefixes = ['mcp-tenant-db/', ...(plane.loginsUse === 'secret' ? ['tenancy-login/'] : [])];
  for (const whole of prefixes) {
    let prefix = whole;
    let names = await secrets.list(prefix, secretsAtOnce);
    if (names.length === secretsAtOnce) {
      prefix = `${whole}${part.toString(16)}`;
      names = await secrets.list(prefix, 16 * secretsAtOnce);
      // Not even a sixteenth fits: what is missing can't be told from what was cut off.
      if (names.length === 16 * secretsAtOnce) continue;
    }
    const there = new Set(names);
    const missing = [...wanted].filter(
      ([name, { tenant }]) => name.startsWith(prefix) && !there.has(name) && !busy.has(tenant),
    );
    const busyNow = missing.length > 0 ? await readBusy(catalog) : busy;
    for (const [name, { slug, strategy, tenant }] of missing) {
      // Begun since the catalog was read, or made since the names were.
      if (busyNow.has(tenant) || (await secrets.list(name, 1)).length > 0) continue;
      findings.push(
        finding(
          'secrets',
          [strategy],
          `secret ${name} of ${slug}`,
          'is not there: new connections fail',
          `npm run tenants -- why ${slug}`,
        ),
      );
    }
    const strangers = names.filter(
      (name) => !wanted.has(name) && !isOfCluster(name, servers) && ![...busy].some((id) => holds(name, id)),
    );
    const begun = strangers.length > 0 ? await begunMeanwhile(catalog) : [];
    for (const name of strangers) {
      if (begun.some((id) => holds(name, id))) continue;
      findings.push(
        finding(
          'orphans',
          [],
          `secret ${name}`,
          'is there, but no home needs it',
          'delete it, when you know what it is from',
        ),
      );
    }
  }
  return findings;
}

/** The pair that signs API keys: those that are out go on without it, another one can't be made. */
export async function auditSigningKeys(
  { secrets, readSigningKeys }: Pick<Watch, 'secrets' | 'readSigningKeys'>,
  secret: string,
): Promise<HealthFinding[]> {
  // One that is to be deleted is listed no more, and to read it fails.
  const text = (await secrets.list(secret, 1)).length === 0 ? undefined : await readSigningKeys();
  if (text !== undefined && (await holdsPair(text))) return [];
  const [what, remedy] =
    text === undefined
      ? ['is not there', 'restore it within its recovery window']
      : ['holds no pair that signs and verifies', 'restore its version before, or deploy another pair'];
  return [finding('signing_keys', [], `secret ${secret}`, `${what}: no API key can be made`, remedy, 'none')];
}

const isOfCluster = (name: string, servers: readonly Server[]) =>
  ['catalog', ...servers.map(({ clusterId }) => clusterId)].some((id) =>
    ['tenancy_provisioner', 'tenancy_app', 'tenancy_catalog_reader'].some(
      (login) => name === loginSecretName(id, login),
    ),
  );
const holds = (name: string, id: string) => name.includes(id) || name.includes(id.replaceAll('-', ''));

/** Homes and tenants of what may have begun since the catalog was read: it leaves its name there before it makes a secret. */
async function begunMeanwhile(catalog: ControlConnection): Promise<string[]> {
  const { rows } = await catalog.query<{ id: string }>(
    `select unnest(array[home_id, tenant_id])::text as id from catalog.homes
      where state in ('provisioning', 'moved') or created_at > now() - interval '2 minutes'
     union
     select unnest(array[input ->> 'homeId', tenant_id::text]) from catalog.operations
      where state = 'running' or finished_at > now() - interval '2 minutes'`,
  );
  return rows.flatMap(({ id }) => id ?? []);
}
