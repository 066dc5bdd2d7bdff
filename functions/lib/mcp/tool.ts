import type { z } from 'zod';
import type { TenantDatabase } from '../database/types.ts';
import type { TenantId } from '../tenant/tenant.ts';

export { sql } from '../database/sql.ts';
export type { TenantDatabase } from '../database/types.ts';

/** What a tool is given. There is nothing else to reach the database or another tenant with. */
export interface ToolHelpers {
  /** The caller's tenant's data, read-only for a tool with `readOnlyHint`. */
  readonly db: TenantDatabase;
  readonly tenant: { readonly id: TenantId; readonly slug: string };
  /** Who calls on the tenant's behalf: the token's subject or the API key's id. */
  readonly principal: string;
  /** Aborts when the caller is gone or the deadline has passed; `db` follows it by itself. */
  readonly signal: AbortSignal;
  readonly log: ToolLog;
  /** Opaque, encrypted paging positions that only this tenant and principal can hand back. */
  readonly cursor: { seal(position: unknown): string; open(cursor: string): unknown };
}

export interface ToolLog {
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
}

export interface ToolAnnotations {
  /** true: runs in READ ONLY transactions. Required, so that every author decides. */
  readonly readOnlyHint: boolean;
  readonly destructiveHint?: boolean;
  readonly idempotentHint?: boolean;
}

export interface Tool<I extends z.ZodObject = z.ZodObject, O extends z.ZodObject = z.ZodObject> {
  /** `a-z 0-9 _`, up to 64 characters; what the agent calls. */
  readonly name: string;
  readonly title: string;
  /** For the model: what it does, what it answers, when to use it. Static text, never a tenant's data. */
  readonly description: string;
  readonly input: I;
  readonly output: O;
  /**
   * All of them are needed; a caller without them is refused. Clients that cannot ask for a further scope (of revisions
   * before 2026-07-28) do not see the tool either.
   */
  readonly scopes: readonly string[];
  readonly annotations: ToolAnnotations;
  /**
   * The migrations between which it works, by their numbers: `{ from: '0004' }` for one that reads a column of
   * `0004-*.sql`, `{ to: '0006' }` for one that 0007 takes the ground from. A tenant whose home is elsewhere does not see
   * the tool. Without it: every version.
   */
  readonly schema?: { readonly from?: string; readonly to?: string };
  run(input: z.output<I>, helpers: ToolHelpers): Promise<z.input<O>>;
}

/** Declares one tool. Put it in a file of its own in `functions/mcp/tools/` and name it in `index.ts` there. */
export function defineTool<I extends z.ZodObject, O extends z.ZodObject>(tool: Tool<I, O>): Tool<I, O> {
  return tool;
}

/** Throw it to tell the model what to do differently; the message reaches the model as it is. */
export class ToolError extends Error {
  override readonly name = 'ToolError';
}
