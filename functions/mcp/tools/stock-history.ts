import { z } from 'zod';
import { defineTool, sql, ToolError } from '../../lib/mcp/tool.ts';
import { sku, unknownSku } from './item.ts';

const movement = z.object({
  movement_id: z.string(),
  made_at: z.string().describe('ISO 8601, UTC.'),
  change: z.int(),
  quantity: z.int().describe('Units in stock after the change.'),
  reason: z.string(),
  note: z.string().nullable(),
  made_by: z.string(),
});

/** Where a page ended: the last movement's place in the order, and the item it belongs to. */
const position = z.tuple([z.string(), z.string(), z.string()]);

export const stockHistory = defineTool({
  name: 'stock_history',
  title: 'Stock history',
  description:
    'Answers an item’s stock movements, newest first: when, how many, why and by whom. ' +
    'When next_cursor is there, call again with the same SKU and that cursor for older ones.',
  input: z.object({
    sku,
    cursor: z.string().max(2000).optional().describe('next_cursor of the page before, unchanged.'),
    limit: z.int().min(1).max(100).default(20),
  }),
  output: z.object({ movements: z.array(movement), next_cursor: z.string().optional() }),
  scopes: ['inventory:read'],
  annotations: { readOnlyHint: true },
  async run({ sku, cursor: given, limit }, { db, cursor }) {
    const [itemSku, madeAt, movementId] = given ? position.parse(cursor.open(given)) : [sku, null, null];
    if (itemSku !== sku)
      throw new ToolError('The cursor belongs to another SKU. Leave it out to start at the newest movement.');
    // By place in the order, not by offset: movements made between two pages shift nothing. The time is passed as text,
    // because JavaScript's dates would cut PostgreSQL's microseconds.
    const { rows } = await db.query<z.output<typeof movement>>(sql`
      select movement_id, to_char(made_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as made_at,
             change, balance as quantity, reason, note, made_by
        from stock_movements
       where item_id = (select item_id from items where sku = ${sku})
         and (${madeAt}::timestamptz is null or (made_at, movement_id) < (${madeAt}::timestamptz, ${movementId}::uuid))
       order by made_at desc, movement_id desc
       limit ${limit + 1}`);
    if (rows.length === 0 && !given) {
      const { rowCount } = await db.query(sql`select from items where sku = ${sku}`);
      if (rowCount === 0) throw unknownSku(sku);
    }
    const page = rows.slice(0, limit);
    const last = page.at(-1);
    const next =
      last && rows.length > limit ? { next_cursor: cursor.seal([sku, last.made_at, last.movement_id]) } : {};
    return { movements: page, ...next };
  },
});
