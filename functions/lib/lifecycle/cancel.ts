import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { OperationKind } from './operations.ts';

/** Others are given up in ways of their own. */
export const canBeCancelled = (kind: OperationKind): boolean => kind === 'export' || kind === 'import';

/**
 * Asks an operation to end: its step sees it, and alone ends it, so that what has been done by then is told as done.
 * @returns false when it has ended
 */
export async function askToCancel(catalog: ControlConnection, operationId: string): Promise<boolean> {
  const { rowCount } = await catalog.query(
    "update catalog.operations set cancel_asked = true where operation_id = $1 and state = 'running'",
    [operationId],
  );
  return rowCount === 1;
}

/** @throws TenantryError `operation_cancelled` once an operator has asked for it */
export async function requireWanted(catalog: ControlConnection, operationId: string): Promise<void> {
  const { rowCount } = await catalog.query(
    'select from catalog.operations where operation_id = $1 and cancel_asked',
    [operationId],
  );
  if (rowCount !== 0) throw new TenantryError('operation_cancelled', 'An operator has cancelled it.');
}
