import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { Tool } from './tool.ts';

/** One entry of `tools/list`, the same in both protocol families. */
export interface ToolDescriptor {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly inputSchema: JsonSchema;
  readonly outputSchema: JsonSchema;
  readonly annotations: {
    readonly readOnlyHint: boolean;
    readonly destructiveHint?: boolean;
    readonly idempotentHint?: boolean;
    readonly openWorldHint: false;
  };
}

type JsonSchema = { readonly type: 'object'; readonly [key: string]: unknown };

export interface RegisteredTool {
  readonly tool: Tool;
  /** Answered to the product's own principals alone. */
  readonly isInternal: boolean;
  /** The tool's input, refusing unknown arguments: a tenant named there must not be silently ignored. */
  readonly input: z.ZodObject;
}

export interface Registry {
  find(name: unknown): RegisteredTool | undefined;
  /** All of them, for clients that can ask for the scopes they lack. */
  readonly list: readonly ToolDescriptor[];
  /** Those that the scopes allow. */
  listFor(granted: ReadonlySet<string>): readonly ToolDescriptor[];
}

const toolName = /^[a-z][a-z0-9_]{0,63}$/;
/** Distinct scope sets kept; each holds references only. */
const maxLists = 256;

/** Everything about the tools that does not depend on a request, computed once. */
export function createRegistry(tools: readonly Tool[], internal: readonly Tool[] = []): Registry {
  const byName = new Map<string, RegisteredTool>();
  const list: ToolDescriptor[] = [];
  for (const tool of [...internal, ...tools]) {
    const isInternal = internal.includes(tool);
    if (!toolName.test(tool.name))
      throw new TypeError(`Tool name "${tool.name}": use a-z, 0-9 and _, at most 64 characters.`);
    if (byName.has(tool.name)) throw new TypeError(`Two tools are named "${tool.name}": rename one.`);
    const input = tool.input.strict();
    byName.set(tool.name, { tool, input, isInternal });
    if (!isInternal) list.push(describe(tool, input));
  }

  const known = [...new Set(tools.flatMap((tool) => tool.scopes))].sort();
  const lists = new LRUCache<string, readonly ToolDescriptor[]>({ max: maxLists });

  return {
    find: (name) => (typeof name === 'string' ? byName.get(name) : undefined),
    list,
    listFor(granted) {
      const key = known.filter((scope) => granted.has(scope)).join(' ');
      let visible = lists.get(key);
      if (!visible) {
        visible = list.filter(({ name }) => mayUse(byName.get(name)!.tool, granted));
        lists.set(key, visible);
      }
      return visible;
    },
  };
}

export function mayUse(tool: Tool, granted: ReadonlySet<string>): boolean {
  return tool.scopes.every((scope) => granted.has(scope));
}

function describe(tool: Tool, input: z.ZodObject): ToolDescriptor {
  return {
    name: tool.name,
    title: tool.title,
    description: tool.description,
    inputSchema: jsonSchema(tool, input, 'input'),
    outputSchema: jsonSchema(tool, tool.output, 'output'),
    // A tool reaches its tenant's data and nothing else.
    annotations: { ...tool.annotations, openWorldHint: false },
  };
}

/** Without `$schema`: both families take JSON Schema 2020-12 for granted, and older clients refuse a dialect they don't know. */
function jsonSchema(tool: Tool, schema: z.ZodObject, io: 'input' | 'output'): JsonSchema {
  try {
    const { $schema: _, ...rest } = z.toJSONSchema(schema, { io });
    // A header that mirrors an argument has to be compared with it in every call, which nothing here does.
    if (JSON.stringify(rest).includes('"x-mcp-header"'))
      throw new TypeError('x-mcp-header is not supported.');
    return rest as JsonSchema;
  } catch (cause) {
    throw new TypeError(
      `Tool "${tool.name}": its ${io} can't be described as JSON Schema. ${(cause as Error).message}`,
    );
  }
}
