import { z } from 'zod';
import { sql, ToolError } from '../../lib/mcp/tool.ts';

/** What the inventory tools share: how an item is named, read and shown. */

export const sku = z
  .string()
  .trim()
  .min(1)
  .max(64)
  .describe('The item’s stock keeping unit, exactly as search_inventory shows it.');

export const item = z.object({
  sku: z.string(),
  name: z.string(),
  category: z.string(),
  location: z.string().describe('Where it is kept.'),
  unit: z.string().describe('What one is: piece, box, litre, …'),
  price_cents: z.int().describe('Price of one unit, in cents.'),
  quantity: z.int().describe('Units in stock now.'),
  reorder_level: z.int().describe('At or below this quantity the item is low.'),
});

/**
 * The columns of `item`. A bigint arrives in JavaScript as a string, because it may be too large for a number; 2^53 cents
 * are enough here.
 */
export const itemColumns = sql`sku, name, category, location, unit, price_cents::float8 as price_cents, quantity, reorder_level`;

export const unknownSku = (sku: string) =>
  new ToolError(`There is no item with SKU "${sku}". Use search_inventory to find the right one.`);
