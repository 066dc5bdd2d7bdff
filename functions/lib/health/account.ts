import { instanceName, type KnownInstance } from '../aws/rds.ts';
import type { ControlConnection } from '../database/connect.ts';
import { catalogReader } from '../isolation/catalog-reader.ts';
import { loginSecretName } from '../isolation/credentials.ts';
import { type Home, isolations } from '../isolation/isolation.ts';
import { holdsPair } from '../lifecycle/keys.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import { finding, type HealthFinding } from './findings.ts';
import { type Picture, readBusy, type Server } from './picture.ts';
import type { Watch } from './watch.ts';

/** More names than this are looked at in sixteenths, one a run. */
const secretsAtOnce = 300;

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
    findings.push(finding('instances', ['database'], object, text, remedyOf(instance?.status)));
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

function remedyOf(status: string | undefined): string {
  if (status === undefined)
    return 'restore its last backup under its name, if nobody has deleted it on purpose';
  if (/^stop/.test(status)) return 'start it, if nobody has stopped it on purpose';
  if (status === 'storage-full') return 'give it more storage: modify-db-instance --allocated-storage';
  return 'look at its events in RDS';
}

/** Statuses in which an instance answers. */
const serving =
  /^(available|backing-up|configuring-.*|modifying|maintenance|storage-(?!full).*|upgrading|renaming|resetting-master-credentials)$/;

/** Tenants' secrets beside the homes that need them; no value is read. */
export async function auditSecrets(
  watch: Pick<Watch, 'plane' | 'secrets'>,
  catalog: ControlConnection,
  picture: Pick<Picture, 'busy' | 'servers'>,
  part: number,
): Promise<HealthFinding[]> {
  const wanted = await wantedSecrets(watch, catalog);
  const findings: HealthFinding[] = [];
  for (const whole of ['mcp-tenant-db/', ...(watch.plane.loginsUse === 'secret' ? ['tenancy-login/'] : [])]) {
    const there = await secretsThere(watch, whole, part);
    // Not even a sixteenth fits: what is missing can't be told from what was cut off.
    if (there === undefined) continue;
    findings.push(...(await missingSecrets(watch, catalog, wanted, there, picture)));
    findings.push(...(await strangeSecrets(watch, catalog, wanted, there, picture)));
  }
  return findings;
}

interface Needing {
  readonly tenant: TenantId;
  readonly slug: string;
  readonly strategy: Strategy;
}

/** By their names, the secrets that homes need, and whose they are. */
async function wantedSecrets(
  { plane }: Pick<Watch, 'plane'>,
  catalog: ControlConnection,
): Promise<ReadonlyMap<string, Needing>> {
  const { rows } = await catalog.query<
    Home & { readonly slug: string; readonly clusterId: string; readonly kind: 'shared' | 'dedicated' }
  >(
    `select h.home_id as "homeId", h.tenant_id as tenant, t.slug, h.strategy, h.schema_name as schema, h.login, h.epoch::int, c.cluster_id as "clusterId", c.kind
       from catalog.homes h join catalog.tenants t using (tenant_id) join catalog.clusters c using (cluster_id)
      where h.strategy <> 'rls' and h.state <> 'moved'`,
  );
  const wanted = new Map<string, Needing>();
  for (const home of rows) {
    const secret = isolations[home.strategy].secret(home, home, plane.loginsUse);
    if (secret) wanted.set(secret.name, home);
  }
  return wanted;
}

interface Listed {
  readonly prefix: string;
  readonly names: readonly string[];
}

/** Names that begin with `whole`, or, where they are many, with that and this run's digit; undefined: even those are too many. */
async function secretsThere(
  { secrets }: Pick<Watch, 'secrets'>,
  whole: string,
  part: number,
): Promise<Listed | undefined> {
  const all = await secrets.list(whole, secretsAtOnce);
  if (all.length < secretsAtOnce) return { prefix: whole, names: all };
  const prefix = `${whole}${part.toString(16)}`;
  const names = await secrets.list(prefix, 16 * secretsAtOnce);
  return names.length < 16 * secretsAtOnce ? { prefix, names } : undefined;
}

async function missingSecrets(
  { secrets }: Pick<Watch, 'secrets'>,
  catalog: ControlConnection,
  wanted: ReadonlyMap<string, Needing>,
  { prefix, names }: Listed,
  { busy }: Pick<Picture, 'busy'>,
): Promise<HealthFinding[]> {
  const there = new Set(names);
  const missing = [...wanted].filter(
    ([name, { tenant }]) => name.startsWith(prefix) && !there.has(name) && !busy.has(tenant),
  );
  const findings: HealthFinding[] = [];
  const busyNow = missing.length > 0 ? await readBusy(catalog) : busy;
  for (const [name, { slug, strategy, tenant }] of missing) {
    // Begun since the catalog was read, or made since the names were, which lag behind by minutes.
    if (busyNow.has(tenant) || (await secrets.isThere(name))) continue;
    const object = `secret ${name} of ${slug}`;
    const why = `npm run tenants -- why ${slug}`;
    findings.push(finding('secrets', [strategy], object, 'is not there: new connections fail', why));
  }
  return findings;
}

async function strangeSecrets(
  { secrets }: Pick<Watch, 'secrets'>,
  catalog: ControlConnection,
  wanted: ReadonlyMap<string, Needing>,
  { names }: Listed,
  { busy, servers }: Pick<Picture, 'busy' | 'servers'>,
): Promise<HealthFinding[]> {
  const strangers = names.filter(
    (name) => !wanted.has(name) && !isOfCluster(name, servers) && ![...busy].some((id) => holds(name, id)),
  );
  const begun = strangers.length > 0 ? await begunMeanwhile(catalog) : [];
  const findings: HealthFinding[] = [];
  for (const name of strangers.filter((name) => !begun.some((id) => holds(name, id)))) {
    // Deleted minutes ago, it may still be listed.
    if (!(await secrets.isThere(name))) continue;
    const remedy = 'delete it, when you know what it is from';
    findings.push(finding('orphans', [], `secret ${name}`, 'is there, but no home needs it', remedy));
  }
  return findings;
}

/** The pair that signs API keys: those that are out go on without it, another one can't be made. */
export async function auditSigningKeys({
  secrets,
  keySecrets,
  readSigningKeys,
}: Pick<Watch, 'secrets' | 'keySecrets' | 'readSigningKeys'>): Promise<HealthFinding[]> {
  const secret = keySecrets.signingKeySecret;
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
  name === loginSecretName(catalogReader.clusterId, catalogReader.login) ||
  servers.some(({ clusterId }) =>
    ['tenancy_provisioner', 'tenancy_app'].some((login) => name === loginSecretName(clusterId, login)),
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
