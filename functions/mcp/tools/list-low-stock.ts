import { z } from 'zod';
import { defineTool, sql } from '../../lib/mcp/tool.ts';
import { item, itemColumns } from './item.ts';

export const listLowStock = defineTool({
  name: 'list_low_stock',
  title: 'List low stock',
  description:
    'Lists the items at or below their reorder level, those that lack most first. ' +
    'Use it to answer what has to be reordered; total says how many there are beyond the limit.',
  input: z.object({
    category: z
      .string()
      .trim()
      .min(1)
      .max(80)
      .optional()
      .describe('Only this category, exactly as items show it.'),
    limit: z.int().min(1).max(100).default(20),
  }),
  output: z.object({ items: z.array(item), total: z.int().describe('Low items in all, listed or not.') }),
  scopes: ['inventory:read'],
  annotations: { readOnlyHint: true },
  async run({ category = null, limit }, { db }) {
    const { rows } = await db.query<z.output<typeof item> & { total: number }>(sql`
      select ${itemColumns}, (count(*) over ())::integer as total
        from items
       where quantity <= reorder_level and (${category}::text is null or category = ${category})
       order by reorder_level - quantity desc, sku
       limit ${limit}`);
    return { items: rows.map(({ total: _, ...found }) => found), total: rows[0]?.total ?? 0 };
  },
});
