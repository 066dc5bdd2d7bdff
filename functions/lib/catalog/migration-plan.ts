import type { Strategy } from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';

/** What of the fleet is where, for planning; the shared tables of each shared cluster are one target. */
export interface Planned {
  /** Of the strategies whose homes have tables of their own. */
  readonly owning: readonly Strategy[];
  /** Every state of the release, the newest last. */
  readonly states: readonly { readonly version: string; readonly digest: string }[];
  readonly version: string;
  readonly digest: string;
  /** Slugs of the first ring, which the product's own canaries are in; none: one home of each strategy beside them. */
  readonly canaries: readonly string[];
  /** Of each tier's homes, in the second ring. */
  readonly percent: number;
}

/** Rings: 0 canaries, 1 a percentage, 2 to 4 the rest by tier, the one that pays least first, 5 the shared tables. */
export const ringNames = ['canary', 'sample', 'starter', 'pro', 'enterprise', 'shared'] as const;

/** How long a move holds its homes, and what ends that earlier; `m` is a row of catalog.moves, `w` its tenant. */
const moveText = `case m.phase
  when 'switched' then format('%s can be moved back until %s UTC; to end that earlier: npm run tenants -- move complete %s', w.slug,
                              to_char((m.switched_at + make_interval(secs => m.window_seconds)) at time zone 'utc', 'YYYY-MM-DD HH24:MI'), w.slug)
  when 'moving' then case when m.paused_at is not null or m.wanted = 'pause'
    then format('the move of %s is paused; to go on: npm run tenants -- move resume %s, or cancel', w.slug, w.slug)
    else format('%s is being moved, and can be moved back for %s minutes after the switch: npm run tenants -- move status %s', w.slug, m.window_seconds / 60, w.slug) end
  else format('the home that %s has left is being removed: npm run tenants -- move status %s', w.slug, w.slug) end`;

/**
 * Of which tenants the homes are migrated; `t` is a row of catalog.tenants. Suspended ones, and those in a grace period, may be
 * resumed at any time and have to be where the fleet is then.
 */
export const isMigrated =
  "(t.status in ('active', 'suspended') or t.status = 'offboarding' and t.removal_begun_at is null)";

/** What a run says of a home that has more than the release: it gets the runtime and the keys, and keeps its tables. */
const aheadText = (from: string, to: string) =>
  `case when ${from} collate "C" > ${to} then format('has %s, which this release lacks, and keeps it: no home goes back', ${from}) end`;

/**
 * Homes that are not at the run's state, or that a pin keeps from it. Of tenants that are gone or have no home yet: none. Those that
 * are beyond it in this release are where they shall be: a run to an earlier version changes nothing about them.
 * A failed one gets its migrations when it is provisioned again.
 */
export const plannedTargets = `
  with state as (select * from unnest($1::text[], $2::text[]) with ordinality s(version, digest, place)),
  wanted as (select * from state where version = $3),
  move as (
    select m.tenant_id, ${moveText} as text,
           array_remove(array[case when o.input ->> 'from' <> all ($4) then s.cluster_id end,
                              case when o.input ->> 'strategy' <> all ($4) then coalesce((o.input ->> 'clusterId')::uuid, s.cluster_id) end], null) as shared
      from catalog.moves m join catalog.operations o using (operation_id) join catalog.tenants w on w.tenant_id = m.tenant_id
      left join catalog.homes s on s.home_id = m.source_home
     where o.state = 'running'
  ),
  home as (
    select h.home_id, h.tenant_id, h.strategy, h.cluster_id, h.database_name, h.schema_version, h.schema_digest, t.slug, t.tier, t.is_canary,
           p.version as pin, p.until, p.reason as pin_reason,
           row_number() over (partition by h.strategy order by md5(h.home_id::text)) as nth
      from catalog.homes h join catalog.tenants t on t.home_id = h.home_id
      left join catalog.migration_pins p on p.tenant_id = t.tenant_id and p.until > now()
     where h.strategy = any ($4) and h.state in ('open', 'read_only', 'fenced', 'suspended')
       and ${isMigrated}
  ),
  target as (
    select h.*, pinned.is_held and (aim.place is null or h.schema_digest = aim.digest) as stays,
           coalesce(aim.version, w.version) as to_version, coalesce(aim.digest, w.digest) as to_digest
      from home h cross join wanted w
      left join state goal on goal.version = h.pin
      left join state present on present.version = h.schema_version
     -- A pin that lies beyond this run holds nothing back; one to a version that the release lacks holds everything.
     cross join lateral (select h.pin is not null and (goal.place is null or goal.place < w.place) as is_held) pinned
     -- Up to its pin, and where it is already, no file; its database gets the runtime and the signing keys all the same.
      left join state aim on aim.place = case when not pinned.is_held then greatest(w.place, present.place)
                                              when present.place is null or present.place < goal.place then goal.place else present.place end
     where h.schema_digest is distinct from w.digest and (pinned.is_held or h.schema_digest is distinct from aim.digest)
  )
  select home_id as target_id, 'home' as kind, slug, schema_version as from_version, to_version as version, to_digest as digest,
         concat(cluster_id, '/', database_name) as place,
         case when stays then format('pinned to %s until %s: %s', pin, to_char(until, 'YYYY-MM-DD'), pin_reason) end as pinned,
         (select m.text from move m where m.tenant_id = target.tenant_id) as moving,
         ${aheadText('schema_version', 'to_version')} as ahead,
         case when is_canary or cardinality($5::text[]) = 0 and nth = 1 or slug = any ($5) then 0
              when ('x' || substr(md5(home_id::text), 1, 7))::bit(28)::integer % 100 < $6 then 1
              else case tier when 'starter' then 2 when 'pro' then 3 else 4 end end as ring
    from target
  union all
  select c.cluster_id, 'shared', null, c.schema_version, aim.version, aim.digest, concat(c.cluster_id, '/', c.database_name), null,
         (select string_agg(m.text, '; ' order by m.text) from move m where c.cluster_id = any (m.shared)),
         ${aheadText('c.schema_version', 'aim.version')}, 5
    from catalog.clusters c cross join wanted w left join state present on present.version = c.schema_version
    join state aim on aim.place = greatest(w.place, present.place)
   where c.kind = 'shared' and c.database_id is not null and c.schema_digest is distinct from aim.digest`;

export const planParameters = (plan: Planned) => [
  plan.states.map(({ version }) => version),
  plan.states.map(({ digest }) => digest),
  plan.version,
  plan.owning,
  plan.canaries,
  plan.percent,
];

/** Writes the targets of a run; those that a pin or a move holds back, or that are ahead, say so. Again: nothing is added. */
export async function recordTargets(catalog: Catalog, operationId: string, plan: Planned): Promise<void> {
  await catalog.query(
    `insert into catalog.migration_targets (operation_id, target_id, kind, ring, place, version, digest, state, reason)
     select $7, target_id, kind, ring, place, version, digest, case when moving is not null then 'moving' when pinned is null then 'pending' else 'pinned' end, coalesce(moving, pinned, ahead)
       from (${plannedTargets}) t on conflict do nothing`,
    [...planParameters(plan), operationId],
  );
}

export interface PlannedTarget {
  readonly targetId: string;
  readonly kind: 'home' | 'shared';
  readonly slug: string | null;
  readonly ring: number;
  readonly from: string | null;
  readonly to: string;
  readonly pinned: string | null;
  /** The move that it waits for, until when, and what ends that earlier. */
  readonly moving: string | null;
  /** It has a version that the release lacks. */
  readonly ahead: string | null;
}

/** What a run would do, by ring; `limit`: of the fleet, these many are named. */
export async function previewTargets(
  catalog: Catalog,
  plan: Planned,
  limit: number,
): Promise<{ targets: PlannedTarget[]; total: number }> {
  const { rows } = await catalog.query(
    `select *, count(*) over ()::integer as total from (${plannedTargets}) t order by ring, slug nulls last limit $7`,
    [...planParameters(plan), limit],
  );
  return {
    total: rows[0]?.total ?? 0,
    targets: rows.map((row) => ({
      targetId: row.target_id,
      kind: row.kind,
      slug: row.slug,
      ring: row.ring,
      from: row.from_version,
      to: row.ahead === null ? row.version : row.from_version,
      pinned: row.pinned,
      moving: row.moving,
      ahead: row.ahead,
    })),
  };
}
