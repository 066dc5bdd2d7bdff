import { z } from 'zod';
import { defineTool, sql, ToolError } from '../../lib/mcp/tool.ts';
import { sku, unknownSku } from './item.ts';

interface Movement {
  sku: string;
  change: number;
  reason: string;
  quantity: number;
  movement_id: string;
}

export const adjustStock = defineTool({
  name: 'adjust_stock',
  title: 'Adjust stock',
  description:
    'Adds to or takes from an item’s stock and records why. Stock never goes below zero: then nothing changes. ' +
    'Make up a new idempotency_key for every change you intend, and send the same one when you repeat a call ' +
    'whose answer you did not get: the change is then made once, and the first answer is given again.',
  input: z.object({
    sku,
    change: z
      .int()
      .min(-1_000_000)
      .max(1_000_000)
      .refine((change) => change !== 0, 'must not be 0')
      .describe('Units to add, or to take when negative; not 0.'),
    reason: z.enum(['received', 'sold', 'used', 'returned', 'damaged', 'counted']),
    note: z.string().trim().max(500).optional(),
    idempotency_key: z
      .string()
      .trim()
      .min(8)
      .max(100)
      .describe('Unique for this change, for example a UUID.'),
  }),
  output: z.object({
    sku: z.string(),
    change: z.int(),
    quantity: z.int().describe('Units in stock after this change.'),
    movement_id: z.string(),
    repeated: z.boolean().describe('This key’s change had been made before; nothing was changed now.'),
  }),
  scopes: ['inventory:read', 'inventory:write'],
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true },
  async run({ sku, change, reason, note = null, idempotency_key }, { db, principal }) {
    // One statement, so one round trip and no transaction to hold open. The row lock makes concurrent changes of an item
    // wait for each other and see the stock that the one before has left; the key's unique index lets one of them in.
    // tenant_id is inserted by its default, the caller's tenant: no other value would be accepted. In joins it is part of
    // the key, as in the index behind it.
    const made = await db.query<Movement>(sql`
      with item as (
        select item_id, sku, quantity from items where sku = ${sku} for update
      ), movement as (
        insert into stock_movements (item_id, change, balance, reason, note, made_by, idempotency_key)
        select item_id, ${change}::integer, quantity + ${change}::integer, ${reason}, ${note}, ${principal}, ${idempotency_key}
          from item
         where quantity + ${change}::integer >= 0
        on conflict (tenant_id, idempotency_key) do nothing
        returning *
      )
      update items set quantity = movement.balance
        from movement
       where items.tenant_id = movement.tenant_id and items.item_id = movement.item_id
      returning items.sku, movement.change, movement.reason, movement.balance as quantity, movement.movement_id`);
    if (made.rows[0]) return answer(made.rows[0], false);

    // Nothing was changed. Why, only a new statement can see: the first one's view is from before it waited.
    const { rows } = await db.query<{ in_stock: number } & (Movement | { movement_id: null })>(sql`
      select items.quantity as in_stock, sku, change, reason, balance as quantity, movement_id
        from items left join stock_movements
          on stock_movements.tenant_id = items.tenant_id and stock_movements.item_id = items.item_id
         and idempotency_key = ${idempotency_key}
       where sku = ${sku}`);
    const found = rows[0];
    if (!found) throw unknownSku(sku);
    if (found.movement_id !== null) {
      if (found.change === change && found.reason === reason) return answer(found, true);
      throw new ToolError(
        `The idempotency_key was used before, for ${found.change} (${found.reason}). ` +
          'Nothing was changed now: send a new key if this is another change.',
      );
    }
    if (found.in_stock + change < 0) {
      throw new ToolError(
        `${sku} has ${found.in_stock} in stock, so ${change} is not possible and nothing was changed. ` +
          `Take at most ${found.in_stock}, or correct the stock first with reason "counted".`,
      );
    }
    throw new ToolError(
      'Nothing was changed: the idempotency_key was used for another item, or the stock has changed meanwhile. ' +
        'Call again with a new key.',
    );
  },
});

function answer({ sku, change, quantity, movement_id }: Movement, repeated: boolean) {
  return { sku, change, quantity, movement_id, repeated };
}
