import { randomUUID } from 'node:crypto';
import type { Move } from '../catalog/moves.ts';
import type { ReachableHome } from '../catalog/tenants.ts';
import { openCopyConnection } from '../database/copy-between.ts';
import type { Sides } from '../move/catch-up.ts';
import { claim } from '../move/hold.ts';
import { reading, type Side } from '../move/side.ts';
import { readTables } from '../move/tables.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';

type With = { readonly plane: ControlPlane };

/** One attempt's hold on one home. @throws TenantryError `operation_running` when another move has it */
export async function withSide<T>(
  { plane }: With,
  { operationId }: Pick<Move, 'operationId'>,
  home: ReachableHome,
  mover: string,
  work: (side: Side) => Promise<T>,
): Promise<T> {
  const connection = await openCopyConnection(endpointOf(plane, home));
  try {
    // One side waits for minutes while the other is compared; servers of tenants end sessions that idle for one.
    await connection.query('set idle_session_timeout = 0');
    const side = { home, connection, keys: plane.keys, mover };
    await claim(side, operationId);
    return await work(side);
  } finally {
    await connection.close();
  }
}

/** Both homes in hand, and the tables that are moved. */
export function withSides<T>(
  plane: With,
  move: Pick<Move, 'operationId'>,
  homes: { readonly source: ReachableHome; readonly target: ReachableHome },
  work: (sides: Sides) => Promise<T>,
): Promise<T> {
  const attempt = randomUUID();
  return withSide(plane, move, homes.source, attempt, (source) =>
    withSide(plane, move, homes.target, attempt, async (target) =>
      work({ source, target, tables: await reading(source, () => readTables(source)) }),
    ),
  );
}
