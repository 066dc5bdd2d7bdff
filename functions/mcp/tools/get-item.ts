import { z } from 'zod';
import { defineTool, sql } from '../../lib/mcp/tool.ts';
import { item, itemColumns, sku, unknownSku } from './item.ts';

export const getItem = defineTool({
  name: 'get_item',
  title: 'Get item',
  description: 'Answers one item by its SKU: name, category, location, unit, price, stock and reorder level.',
  input: z.object({ sku }),
  output: z.object({ item }),
  scopes: ['inventory:read'],
  annotations: { readOnlyHint: true },
  async run({ sku }, { db }) {
    const { rows } = await db.query<z.output<typeof item>>(
      sql`select ${itemColumns} from items where sku = ${sku}`,
    );
    if (!rows[0]) throw unknownSku(sku);
    return { item: rows[0] };
  },
});
