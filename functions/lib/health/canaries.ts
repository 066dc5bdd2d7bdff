import { randomUUID } from 'node:crypto';
import type { Route } from '../catalog/route.ts';
import type { ControlConnection } from '../database/connect.ts';
import { beginOperation } from '../lifecycle/operations.ts';
import type { ProvisionInput } from '../lifecycle/provision.ts';
import { type Strategy, strategies, type TenantId } from '../tenant/tenant.ts';
import { finding, type HealthFinding } from './findings.ts';
import { type Tally, tooOften } from './in-a-row.ts';
import type { Watch } from './watch.ts';

/** Two tenants of one strategy: what `a` can do to `b` is what any tenant could do to another. */
export interface Pair {
  readonly strategy: Strategy;
  readonly a: Route;
  readonly b: Route;
}

/** A canary that could not be made is tried again after this time, ms: a run every minute must not fill the list of operations. */
const againAfterMs = 15 * 60_000;

/** Provisioning one takes seconds; after this time, ms, nobody works on it any more. */
const expectedMs = 5 * 60_000;

/** `a` and `b`. The slugs are reserved: no customer can have them. */
const slugsOf = (strategy: Strategy) => [`canary-${strategy}-a`, `canary-${strategy}-b`] as const;

/** By these and not by a mark in the catalog it is told what is a canary: a mark could take every tenant out of the watch. */
export const canarySlugs: readonly string[] = strategies.flatMap(slugsOf);

/** One that is not there yet. */
export interface MissingCanary {
  readonly slug: string;
  readonly strategy: Strategy;
}

/** The canaries of the strategies in use: those that are there, by pairs, and those that are to be made. */
export async function findCanaries(
  catalog: ControlConnection,
  strategies: readonly Strategy[],
): Promise<{ pairs: Pair[]; missing: MissingCanary[] }> {
  const { rows } = await catalog.query<Route>(
    `select t.tenant_id as tenant, t.slug, t.status, h.strategy, h.epoch::int, h.home_id as "homeId",
            h.database_id as "databaseId", h.database_name as database, h.schema_name as schema, h.login,
            h.cluster_id as "clusterId", c.host, c.port
       from catalog.tenants t join catalog.homes h on h.home_id = t.home_id join catalog.clusters c on c.cluster_id = h.cluster_id
      where t.slug = any ($1) and t.is_canary and t.status = 'active'`,
    [strategies.flatMap(slugsOf)],
  );
  const pairs: Pair[] = [];
  const missing: MissingCanary[] = [];
  for (const strategy of strategies) {
    const [a, b] = slugsOf(strategy).map((slug) => {
      const known = rows.find((route) => route.slug === slug);
      if (known === undefined) missing.push({ slug, strategy });
      return known;
    });
    if (a && b) pairs.push({ strategy, a, b });
  }
  return { pairs, missing };
}

/**
 * Strategies in use whose walls nobody tries in this run: what a canary would see goes unseen. A new one's canaries are made
 * in seconds; in several runs in a row they are in doubt.
 */
export function auditUntried(
  inUse: readonly Strategy[],
  tried: readonly Strategy[],
  tally: Tally,
): HealthFinding[] {
  return strategies.flatMap((strategy) => {
    // How that went is for whoever tries it to say.
    if (tried.includes(strategy)) return [];
    const times = tally.note(strategy, !inUse.includes(strategy));
    if (times < tooOften) return [];
    return finding(
      'canaries',
      [strategy],
      `the walls of ${strategy}`,
      `were not tried in ${times} runs in a row`,
      `see to its canaries: ${slugsOf(strategy).join(', ')}`,
      'isolation',
    );
  });
}

interface Recorded {
  readonly tenant: TenantId;
  readonly is_canary: boolean;
  readonly status: string;
  readonly operation: string | null;
  readonly state: string | null;
  readonly reason: string | null;
  readonly ms: number | null;
}

/**
 * Has a canary provisioned as any tenant is, in the shared cluster: the wall of a database is the same there as on an
 * instance of its own, which would cost one for nothing else. Safe to repeat. @returns what keeps it from being made
 */
export async function provisionCanary(
  watch: Pick<Watch, 'provision'>,
  catalog: ControlConnection,
  { slug, strategy }: MissingCanary,
): Promise<HealthFinding[]> {
  await catalog.query(
    `insert into catalog.tenants (slug, tier, strategy, is_canary) values ($1, $2, $3, true) on conflict (slug) do nothing`,
    [slug, 'starter', strategy],
  );
  const { rows } = await catalog.query<Recorded>(
    `select t.tenant_id as tenant, t.is_canary, t.status, o.operation_id as operation, o.state, o.reason,
            (extract(epoch from now() - o.started_at) * 1000)::float8 as ms
       from catalog.tenants t
       left join lateral (select * from catalog.operations o where o.tenant_id = t.tenant_id order by o.started_at desc limit 1) o on true
      where t.slug = $1`,
    [slug],
  );
  const { tenant, is_canary, status, operation, state, reason, ms } = rows[0]!;
  const red = (text: string, remedy: string) => [finding('canaries', [strategy], slug, text, remedy)];
  if (!is_canary)
    return red('is a tenant of that slug and no canary', 'give the tenant another slug: this one is ours');
  if (!['provisioning', 'failed'].includes(status))
    return red(
      `is ${status}`,
      status === 'suspended' ? `npm run tenants -- resume ${slug}` : `npm run tenants -- why ${slug}`,
    );
  if (state === 'running') {
    if (ms! < expectedMs) return [];
    // Whoever ran it is gone, or was never told: an execution of that name that runs or has ended is not begun twice.
    await watch.provision(operation!);
    return red('has been on its way for too long', `npm run tenants -- why ${slug}`);
  }
  if (operation !== null && ms! < againAfterMs)
    return red(`could not be made: ${reason}`, `npm run tenants -- why ${slug}`);
  const input: ProvisionInput = {
    homeId: randomUUID(),
    slug,
    tier: 'starter',
    strategy,
    placement: 'shared-cluster',
  };
  const request = { slug, strategy, canary: true };
  const { operationId } = await beginOperation(catalog, { kind: 'provision', tenant, request, input });
  await watch.provision(operationId);
  return [];
}
