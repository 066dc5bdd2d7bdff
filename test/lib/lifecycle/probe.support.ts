import type { Access } from '../../../functions/lib/isolation/access.ts';
import { probeTool } from '../../../functions/lib/mcp/probe.ts';
import type { TenantId } from '../../../functions/lib/tenant/tenant.ts';
import { limits } from '../../support/world.ts';

/** The data path as the product itself walks it: the built-in tool, without the protocol around it. */
export async function probe(access: Access, tenant: TenantId): Promise<void> {
  const principal = { tenant, principal: 'tenantry', scopes: '', auth: 'verify' };
  const route = await access.resolve(principal);
  const db = access.database(principal, route, limits('w'));
  await probeTool.run({ marker: tenant }, { db, tenant: { id: tenant, slug: route.slug } } as never);
}

/** The same, once. */
export async function probeThrough(access: Access, tenant: TenantId): Promise<void> {
  await probe(access, tenant);
  await access.pools.close();
}
