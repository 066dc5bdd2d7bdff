import { randomUUID } from 'node:crypto';
import type { JWK } from 'jose';
import { mintApiKey } from '../../../functions/lib/auth/api-key.ts';
import type { Secrets } from '../../../functions/lib/aws/secrets.ts';
import { recordApiKey } from '../../../functions/lib/catalog/tenants.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import type { Queryable } from '../../../functions/lib/database/types.ts';
import { QueryError, TenantryError } from '../../../functions/lib/errors.ts';
import { createAccess } from '../../../functions/lib/isolation/access.ts';
import { type ControlPlane, catalogEndpoint } from '../../../functions/lib/lifecycle/control-plane.ts';
import type { Place } from '../../../functions/lib/lifecycle/place.ts';
import { newestState, type Release } from '../../../functions/lib/migrations/release.ts';
import type { McpSettings } from '../../../functions/lib/settings.ts';
import type { Strategy, TenantId, Tier } from '../../../functions/lib/tenant/tenant.ts';
import type { StateFile } from '../emulator/state-file.ts';
import { onboard } from '../onboard.ts';
import type { CloudState } from '../state.ts';
import { type DemoInventory, demoInventory, seedInventory } from './inventory.ts';

/** One tenant of each strategy. */
export const demoTenants = [
  { slug: 'acme', tier: 'starter', strategy: 'rls' },
  { slug: 'globex', tier: 'pro', strategy: 'schema' },
  { slug: 'initech', tier: 'enterprise', strategy: 'database' },
] as const satisfies readonly { slug: string; tier: Tier; strategy: Strategy }[];

export type DemoTenant = (typeof demoTenants)[number] & { readonly id: TenantId };

/**
 * Onboards, or brings to the latest migrations, one demo tenant; undefined when it has been offboarded. One that was moved stays
 * where it is. One whose home refuses them is told and left as it is, as a run would: else nobody could start what it takes to
 * mend it.
 */
export async function prepareTenant(
  plane: ControlPlane,
  tenant: (typeof demoTenants)[number],
  place: Place,
  release: Release,
): Promise<DemoTenant | undefined> {
  const there = await livesAt(plane, tenant.slug);
  if (
    there !== undefined &&
    (there.isMoving || there.strategy !== tenant.strategy || there.clusterId !== place.clusterId)
  ) {
    if (there.digest !== newestState(release).digest)
      console.error(`${tenant.slug} was moved: npm run tenants -- migrate run brings new files to it.`);
    return { ...tenant, id: there.id };
  }
  try {
    return { ...tenant, id: await onboard(plane, tenant, place, release) };
  } catch (error) {
    if (!(error instanceof TenantryError)) throw error;
    if (error.code === 'slug_taken') return undefined;
    if (error.code !== 'migration_refused' || there === undefined) throw error;
    console.error(`${tenant.slug} keeps its old tables. ${error.message}`);
    return { ...tenant, id: there.id };
  }
}

interface Lives {
  readonly id: TenantId;
  readonly strategy: Strategy;
  readonly clusterId: string;
  readonly digest: string | null;
  readonly isMoving: boolean;
}

/** Where it lives by now; undefined: it has no home that was opened before. */
const livesAt = (plane: ControlPlane, slug: string): Promise<Lives | undefined> =>
  withConnection(catalogEndpoint(plane), async (catalog) => {
    const { rows } = await catalog.query<Lives>(
      `select t.tenant_id as id, h.strategy, h.cluster_id as "clusterId", coalesce(h.schema_digest, c.schema_digest) as digest,
              exists (select from catalog.operations o where o.tenant_id = t.tenant_id and o.kind = 'move' and o.state = 'running') as "isMoving"
         from catalog.tenants t join catalog.homes h on h.home_id = t.home_id join catalog.clusters c on c.cluster_id = h.cluster_id where slug = $1`,
      [slug],
    );
    return rows[0];
  });

/** Fills the inventories of those that have none yet, each through its tenant's own way to its data. */
export async function seedTenants(
  state: StateFile<CloudState>,
  tenants: readonly DemoTenant[],
  settings: McpSettings,
  secrets: Secrets,
): Promise<void> {
  const missing = tenants.filter(({ slug }) => !state.value.seeded.includes(slug));
  if (missing.length === 0) return;
  const access = createAccess({ settings, secrets });
  try {
    await Promise.all(missing.map((tenant) => seed(access, tenant)));
    state.value.seeded.push(...missing.map(({ slug }) => slug));
    await state.save();
  } finally {
    await access.pools.close();
  }
}

async function seed(access: ReturnType<typeof createAccess>, { id, slug }: DemoTenant): Promise<void> {
  const principal = { tenant: id, principal: 'demo', scopes: '', auth: 'oidc:local' };
  const db = access.database(principal, await access.resolve(principal), {
    mode: 'w',
    deadline: Date.now() + 60_000,
    signal: AbortSignal.timeout(60_000),
    maxRows: 1,
    maxBytes: 1_024,
    roundTrips: 'one',
  });
  await fillInventory(db, demoInventory(slug));
}

/** Unless the tables are not the example's. */
export async function fillInventory(db: Queryable, inventory: DemoInventory): Promise<void> {
  await seedInventory(db, inventory).catch((error: unknown) => {
    // The adopting team has replaced the example's tables by its own: there are none, or they have other columns or keys.
    if (error instanceof QueryError && ['42P01', '42703', '42P10', '42804'].includes(error.sqlstate)) return;
    throw error;
  });
}

const day = 86_400_000;

/** Each tenant's API key, under the same id at every start, so that an agent configured once stays connected. */
export async function apiKeys(
  plane: ControlPlane,
  state: StateFile<CloudState>,
  tenants: readonly DemoTenant[],
  signingKey: JWK,
  scopes: readonly string[],
  publicUrl: string,
): Promise<Map<string, string>> {
  return withConnection(catalogEndpoint(plane), async (catalog) => {
    const tokens = new Map<string, string>();
    for (const { slug, id } of tenants) {
      let key = state.value.apiKeys[slug];
      if (key === undefined || Date.parse(key.expires) < Date.now() + 30 * day) {
        key = { keyId: randomUUID(), expires: new Date(Date.now() + 365 * day).toISOString() };
        state.value.apiKeys[slug] = key;
        await state.save();
      }
      const { keyId } = key;
      const expires = new Date(key.expires);
      await recordApiKey(catalog, { keyId, tenant: id, name: 'local agent', scopes, expires });
      const claims = { tenant: id, keyId, scopes, expires, issuer: publicUrl, audience: publicUrl };
      tokens.set(slug, await mintApiKey(signingKey, claims));
    }
    return tokens;
  });
}
