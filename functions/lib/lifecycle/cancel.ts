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

/** @throws TenantryError `operation_cancelled` once an operator has asked for it; `operation_ended` when it has ended without us */
export async function requireWanted(catalog: ControlConnection, operationId: string): Promise<void> {
  const { rows } = await catalog.query(
    'select state, cancel_asked from catalog.operations where operation_id = $1',
    [operationId],
  );
  const { state, cancel_asked } = rows[0]!;
  if (state !== 'running') throw new TenantryError('operation_ended', `This operation is ${state} already.`);
  if (cancel_asked) throw new TenantryError('operation_cancelled', 'An operator has cancelled it.');
}
