import { z } from 'zod';
import { defineTool, sql } from '../../lib/mcp/tool.ts';
import { item, itemColumns } from './item.ts';

export const searchInventory = defineTool({
  name: 'search_inventory',
  title: 'Search inventory',
  description:
    'Finds items whose SKU, name, category or location contains every word of q, in any order and any case. ' +
    'Answers the best matches first, with stock and price. Start here whenever an item’s SKU is not known.',
  input: z.object({
    q: z.string().trim().min(1).max(100).describe('One or more words, or parts of words: "hex bolt m8".'),
    limit: z.int().min(1).max(50).default(10),
  }),
  output: z.object({
    items: z.array(item),
    more: z.boolean().describe('There are further matches: use more words, or a higher limit.'),
  }),
  scopes: ['inventory:read'],
  annotations: { readOnlyHint: true },
  async run({ q, limit }, { db }) {
    // No tenant in the statement: whatever the strategy, `db` shows this tenant's rows and no others.
    const words = q.split(/\s+/).map((word) => `%${literally(word)}%`);
    const { rows } = await db.query<z.output<typeof item>>(sql`
      select ${itemColumns}
        from items
       where concat_ws(' ', sku, name, category, location) ilike all (${words}::text[])
       order by lower(sku) = lower(${q}) desc, name ilike ${`${literally(q)}%`} desc, name, sku
       limit ${limit + 1}`);
    return { items: rows.slice(0, limit), more: rows.length > limit };
  },
});

/** `%` and `_` are wildcards to LIKE and ordinary characters to whoever searches. */
function literally(text: string): string {
  return text.replace(/[\\%_]/g, '\\$&');
}
