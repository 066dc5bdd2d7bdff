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

/** What a caller is shown, and the same as JSON: writing a hundred tools anew would be most of what an answer costs. */
export interface ToolList {
  readonly tools: readonly ToolDescriptor[];
  readonly json: Buffer;
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
  /** Those that work with the home's schema; all of these, for clients that can ask for the scopes they lack. */
  list(schemaVersion: string | null): ToolList;
  /** Of these, what the scopes allow. */
  listFor(granted: ReadonlySet<string>, schemaVersion: string | null): ToolList;
}

const toolName = /^[a-z][a-z0-9_]{0,63}$/;
/** RFC 6749's scope-token, without the comma: it separates scopes in settings and on the command line. */
const scopeName = /^[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]+$/;
/** Distinct scope sets kept: of a hundred tools, a hundred kilobytes each. */
const maxLists = 64;

/** Everything about the tools that does not depend on a request, computed once. */
export function createRegistry(tools: readonly Tool[], internal: readonly Tool[] = []): Registry {
  const byName = new Map<string, RegisteredTool>();
  const described: ToolDescriptor[] = [];
  for (const tool of [...internal, ...tools]) {
    const isInternal = internal.includes(tool);
    if (!toolName.test(tool.name))
      throw new TypeError(`Tool name "${tool.name}": use a-z, 0-9 and _, at most 64 characters.`);
    for (const scope of tool.scopes)
      if (!scopeName.test(scope))
        throw new TypeError(
          `Tool "${tool.name}": nobody can be granted the scope "${scope}". Write each as a text of its own, of ASCII without spaces, commas, quotes and backslashes.`,
        );
    if (tool.scopes.some((scope) => scope.startsWith('tenancy:')))
      throw new TypeError(`Tool "${tool.name}": scopes that begin with "tenancy:" are the product's own.`);
    if (byName.has(tool.name)) throw new TypeError(`Two tools are named "${tool.name}": rename one.`);
    const input = tool.input.strict();
    byName.set(tool.name, { tool, input, isInternal });
    for (const number of [tool.schema?.from, tool.schema?.to])
      if (number !== undefined && !/^\d{4}$/.test(number))
        throw new TypeError(`Tool "${tool.name}": its schema "${number}" is not a migration's four digits.`);
    if (!isInternal) described.push(describe(tool, input));
  }

  const known = [...new Set(tools.flatMap((tool) => tool.scopes))].sort();
  const dependsOnSchema = tools.some(({ schema }) => schema !== undefined);
  const lists = new LRUCache<string, ToolList>({ max: maxLists });

  return {
    find: (name) => (typeof name === 'string' ? byName.get(name) : undefined),
    list: (schemaVersion) =>
      remembered(dependsOnSchema ? `${schemaVersion}` : '', ({ tool }) => fitsSchema(tool, schemaVersion)),
    listFor(granted, schemaVersion) {
      const scopes = known.filter((scope) => granted.has(scope)).join(' ');
      const key = dependsOnSchema ? `${scopes} ${schemaVersion}` : `${scopes} `;
      return remembered(key, ({ tool }) => mayUse(tool, granted) && fitsSchema(tool, schemaVersion));
    },
  };

  function remembered(key: string, shows: (tool: RegisteredTool) => boolean): ToolList {
    let list = lists.get(key);
    if (!list) {
      const tools = described.filter(({ name }) => shows(byName.get(name)!));
      list = { tools, json: Buffer.from(JSON.stringify(tools)) };
      lists.set(key, list);
    }
    return list;
  }
}

/** A home whose version nobody has recorded yet has every tool that asks for none. */
export function fitsSchema({ schema }: Tool, version: string | null): boolean {
  if (schema === undefined) return true;
  if (version === null) return false;
  const number = version.slice(0, 4);
  return number >= (schema.from ?? '0000') && number <= (schema.to ?? '9999');
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
