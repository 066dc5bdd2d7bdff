import { z } from 'zod';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { Operation } from '../lifecycle/operations.ts';
import { beginExport, beginImport } from '../lifecycle/transfer.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { transferUrl } from '../transfer/store.ts';
import { type Admin, withCatalog } from './admin.ts';
import { type OperationView, showOperation } from './operations.ts';
import { afterStalled, findTenant, runningInstead } from './tenants.ts';

const address = z.string().min(1).max(1_000);

export const exporting = z.strictObject({
  /** A folder: s3://bucket/folder, or file:///folder where the deployment allows it. */
  to: address,
});
export const importing = z.strictObject({
  from: address,
  /** The rows were another tenant's and shall be this one's. */
  otherTenant: z.boolean().optional(),
});

/** @throws TenantryError `unknown_tenant`, `wrong_status`, `invalid_request`, `idempotency_conflict`, `operation_running` */
export function exportTenant(
  admin: Admin,
  slug: string,
  body: z.output<typeof exporting>,
  idempotencyKey: string | undefined,
): Promise<{ operation: OperationView }> {
  const to = transferUrl(body.to, admin.settings.transferSchemes).href;
  return transfer(admin, slug, 'export', to, (catalog, tenant) =>
    beginExport(catalog, tenant, { slug, to }, idempotencyKey),
  );
}

/** @throws TenantryError `unknown_tenant`, `wrong_status`, `invalid_request`, `idempotency_conflict`, `operation_running` */
export function importTenant(
  admin: Admin,
  slug: string,
  { from: given, otherTenant = false }: z.output<typeof importing>,
  idempotencyKey: string | undefined,
): Promise<{ operation: OperationView }> {
  const from = transferUrl(given, admin.settings.transferSchemes).href;
  return transfer(admin, slug, 'import', from, (catalog, tenant) =>
    beginImport(catalog, tenant, { slug, from, otherTenant }, idempotencyKey),
  );
}

async function transfer(
  admin: Admin,
  slug: string,
  kind: 'export' | 'import',
  url: string,
  begin: (catalog: ControlConnection, tenant: TenantId) => Promise<Operation>,
): Promise<{ operation: OperationView }> {
  const { operationId, state } = await afterStalled(admin, slug, () =>
    withCatalog(admin, async (catalog) => {
      const { tenant_id: tenant, status } = await findTenant(catalog, slug);
      if (status !== 'active' && status !== 'suspended')
        throw new TenantryError('wrong_status', `A tenant that is ${status} has no rows to ${kind}.`);
      try {
        return await begin(catalog, tenant);
      } catch (error) {
        // The same request again, of a caller that died or was impatient: it goes on with what runs.
        const known = await runningInstead(catalog, slug, error);
        const isSame =
          known?.kind === kind && url === (known.kind === 'export' ? known.input.exportTo : known.input.url);
        if (!isSame) throw error;
        return known;
      }
    }),
  );
  if (state === 'running')
    await admin.workflows.start(admin.settings[`${kind}Machine`], operationId, {
      operation: operationId,
      input: {},
    });
  return { operation: await showOperation(admin, operationId) };
}
