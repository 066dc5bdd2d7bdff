import { randomUUID } from 'node:crypto';
import { sql } from '../../functions/lib/database/sql.ts';
import type { Place } from '../../functions/lib/lifecycle/place.ts';
import type { Strategy, TenantId } from '../../functions/lib/tenant/tenant.ts';
import { onboard } from '../../infra/local/onboard.ts';
import { skus, stock } from './agents.ts';
import { limits, type World } from './world.ts';

export interface Stocked {
  readonly id: TenantId;
  readonly slug: string;
}

/** A tenant with an inventory: the items that agents adjust, and others beside them. */
export async function stockedTenant(
  world: World,
  strategy: Strategy,
  place: Place = world.shared,
): Promise<Stocked> {
  const slug = `stocked-${strategy}-x${randomUUID().slice(0, 8)}`;
  const id = await onboard(world.plane, { slug, tier: 'pro', strategy }, place, world.release);
  const access = world.access();
  const principal = { tenant: id, principal: 'seed', scopes: '', auth: 'oidc:http://127.0.0.1/issuer' };
  const db = access.database(principal, await access.resolve(principal), limits('w'));
  await db.query(sql`
    insert into items (sku, name, category, location, unit, price_cents, quantity, reorder_level)
    select sku, 'item ' || sku, 'Parts', 'A', 'piece', 100, ${stock}::integer, 10
      from (select unnest(${skus}::text[]) as sku union all select 'B-' || n from generate_series(1, 200) n) s`);
  await access.pools.close();
  return { id, slug };
}
