import type { Tool } from '../../lib/mcp/tool.ts';
import { adjustStock } from './adjust-stock.ts';
import { getItem } from './get-item.ts';
import { listLowStock } from './list-low-stock.ts';
import { searchInventory } from './search-inventory.ts';
import { stockHistory } from './stock-history.ts';

/** Every tool that the endpoint offers. A tool that is not named here does not exist. */
export const tools: readonly Tool[] = [searchInventory, getItem, listLowStock, adjustStock, stockHistory];
