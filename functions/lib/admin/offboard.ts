import { z } from 'zod';
import { closeTenant } from '../catalog/offboarding.ts';
import { homesOf } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { beginOffboarding, type OffboardRequest } from '../lifecycle/offboard.ts';
import type { Operation } from '../lifecycle/operations.ts';
import { tellHome } from '../lifecycle/suspend.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { type OperationView, operationViews, showOperation } from './operations.ts';
import { afterStalled, findTenant, runningInstead, showTenant, type TenantView } from './tenants.ts';

export const offboarding = z.strictObject({
  /** For so long `resume` undoes it, s. A state machine lives for a year at most, and the removal after it takes its time. */
  graceSeconds: z
    .int()
    .min(0)
    .max(300 * 86_400)
    .default(7 * 86_400),
  /** False: its rows go nowhere before they are removed. */
  export: z.boolean().default(true),
});
export type OffboardingBody = z.output<typeof offboarding>;

/**
 * Closes a tenant at once and has the state machine remove it after its grace period; or continues an offboarding that
 * failed. A tenant that is gone already is answered with the operation that ended it.
 * @throws TenantryError `unknown_tenant`, `idempotency_conflict`, `operation_running`
 */
export async function offboardTenant(
  admin: Admin,
  slug: string,
  { graceSeconds, export: isExported }: OffboardingBody,
  idempotencyKey: string | undefined,
): Promise<{ tenant: TenantView; operation: OperationView }> {
  const place = (tenant: TenantId) => `${admin.settings.exportUrl.replace(/\/+$/, '')}/${slug}-${tenant}`;
  const { tenant, operation } = await afterStalled(admin, slug, () =>
    withCatalog(admin, async (catalog) => {
      const { tenant_id: tenant, status } = await findTenant(catalog, slug);
      const ended = status === 'offboarded' ? await lastOffboarding(catalog, tenant) : undefined;
      if (ended?.state === 'done')
        return { tenant, operation: { operationId: ended.id, state: ended.state } };
      const exportTo = isExported ? place(tenant) : undefined;
      const request: OffboardRequest = { slug, graceSeconds, exportTo };
      const operation = await begin(catalog, tenant, request, idempotencyKey);
      return { tenant, operation };
    }),
  );
  if (operation.state === 'running') await advance(admin, tenant, operation.operationId, graceSeconds);
  return {
    tenant: await showTenant(admin, slug),
    operation: await showOperation(admin, operation.operationId),
  };
}

async function lastOffboarding(
  catalog: ControlConnection,
  tenant: TenantId,
): Promise<OperationView | undefined> {
  const operations = await operationViews(catalog, { tenant, limit: 50 });
  return operations.find(({ kind }) => kind === 'offboard');
}

async function begin(
  catalog: ControlConnection,
  tenant: TenantId,
  request: OffboardRequest,
  idempotencyKey: string | undefined,
): Promise<Operation> {
  try {
    return await beginOffboarding(catalog, tenant, request, idempotencyKey);
  } catch (error) {
    // The same request again, of a caller that died or was impatient: it goes on with what runs.
    const known = await runningInstead(catalog, request.slug, error);
    if (idempotencyKey || known?.kind !== 'offboard') throw error;
    const { graceSeconds, exportTo } = known.input;
    if (graceSeconds !== request.graceSeconds || exportTo !== request.exportTo) throw error;
    return known;
  }
}

/** Refused from the next call on, before anything else is done about it. Safe to repeat. */
async function advance(
  admin: Admin,
  tenant: TenantId,
  operation: string,
  graceSeconds: number,
): Promise<void> {
  const isServed = await withCatalog(admin, async (catalog) => {
    const closed = await closeTenant(catalog, tenant, operation);
    if (closed === undefined || closed.noGrace) return false;
    return (await homesOf(catalog, tenant)).some(({ isInUse }) => isInUse);
  });
  // A home that is away is the machine's to ask again.
  if (isServed) await tellHome(admin.plane, tenant);
  await admin.workflows.start(admin.settings.offboardMachine, operation, {
    operation,
    input: { graceSeconds },
  });
}
