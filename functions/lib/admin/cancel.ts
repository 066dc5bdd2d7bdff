import { TenantryError } from '../errors.ts';
import { askToCancel, canBeCancelled } from '../lifecycle/cancel.ts';
import { giveUp } from '../lifecycle/give-up.ts';
import type { OperationKind } from '../lifecycle/operations.ts';
import { type Admin, withCatalog } from './admin.ts';
import { type OperationView, showOperation } from './operations.ts';

/** What ends another kind earlier, or says what does now. */
const otherWays: Partial<Record<OperationKind, string>> = {
  move: 'move status',
  offboard: 'why',
  migrate: 'migrate halt',
  batch: 'move halt',
};

/**
 * Its step ends it within seconds; an import that is at a statement, after that. One that has failed is left at that.
 * @throws TenantryError `unknown_operation`, `wrong_status`
 */
export async function cancelOperation(admin: Admin, operationId: string): Promise<OperationView> {
  const { kind, tenant, state } = await showOperation(admin, operationId);
  if (state === 'failed') {
    if (await withCatalog(admin, (catalog) => giveUp(catalog, operationId)))
      return showOperation(admin, operationId);
    throw new TenantryError(
      'wrong_status',
      kind === 'move'
        ? `This move has left a home behind, which the next move of ${tenant} removes: npm run tenants -- move status ${tenant}`
        : `There is something to be done about it: npm run tenants -- ${tenant === null ? 'migrate resume' : `why ${tenant}`}`,
    );
  }
  const other = otherWays[kind];
  if (!canBeCancelled(kind))
    throw new TenantryError(
      'wrong_status',
      `Only an export or an import is cancelled so.${other ? ` For this one: npm run tenants -- ${[other, tenant].filter(Boolean).join(' ')}` : ''}`,
    );
  if (!(await withCatalog(admin, (catalog) => askToCancel(catalog, operationId))))
    throw new TenantryError('wrong_status', `This ${kind} is ${state} already.`);
  return showOperation(admin, operationId);
}
