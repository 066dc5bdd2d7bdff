import { probeTool } from '../functions/lib/mcp/probe.ts';
import { createRegistry } from '../functions/lib/mcp/registry.ts';
import type { Tool } from '../functions/lib/mcp/tool.ts';

/**
 * Reads the tools as the MCP function does when it starts. What it refuses there would fail every call of every tenant, so it
 * is refused before anything is deployed or started.
 * @throws TypeError that names the tool and the remedy
 */
export function checkTools(tools: readonly Tool[]): void {
  createRegistry(tools, [probeTool]);
}
