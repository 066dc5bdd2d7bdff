import type { ControlConnection } from '../database/connect.ts';

/**
 * Leaves it at a failure that nothing is to be done about, so that the watch tells of it no longer.
 * @returns false when it has not failed, or has left a home or a tenant in between
 */
export async function giveUp(catalog: ControlConnection, operationId: string): Promise<boolean> {
  const { rowCount } = await catalog.query(
    `update catalog.operations o set state = 'cancelled', reason = concat('An operator has left it at that. ', o.reason)
      where operation_id = $1 and state = 'failed' and kind in ('batch', 'export', 'import', 'move') and not exists (
              select from catalog.moves m join catalog.homes h on h.home_id in (m.source_home, m.target_home) join catalog.tenants t on t.tenant_id = m.tenant_id
               where m.operation_id = o.operation_id and h.home_id is distinct from t.home_id)`,
    [operationId],
  );
  return rowCount === 1;
}
