import type { z } from 'zod';
import type { Principal } from '../auth/principal.ts';
import type { CallLimits, TenantDatabase } from '../database/types.ts';
import { QueryError, TenantryError } from '../errors.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import type { RegisteredTool } from './registry.ts';
import type { ToolHelpers } from './tool.ts';
import { type Failure, failureOf, faultFields, unwrapped } from './tool-error.ts';

/** A tenant that is served, as the catalog knows it now (or up to 30 s ago: its home refuses what is stale). */
export interface AdmittedTenant {
  readonly id: TenantId;
  readonly slug: string;
  readonly strategy: Strategy;
  readonly epoch: number;
  /** `0001-inventory`; null while nobody has recorded it. */
  readonly schemaVersion: string | null;
  open(tool: string, limits: Pick<CallLimits, 'mode' | 'deadline' | 'signal'>): Promise<OpenedCall>;
}

export interface OpenedCall {
  readonly db: TenantDatabase & { stats(): { readonly rows: number } };
  readonly cursor: ToolHelpers['cursor'];
}

export interface Caller {
  readonly requestId: string;
  readonly principal: Principal;
  readonly granted: ReadonlySet<string>;
  /** Unix time, ms. */
  readonly deadline: number;
  /** Aborts when the caller goes away. */
  readonly signal: AbortSignal;
  readonly tenant: AdmittedTenant;
}

export type Log = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields: Record<string, unknown>,
) => void;

/** Both families' `tools/call` result. */
export interface ToolResult {
  [key: string]: unknown;
  content: { type: 'text'; text: string }[];
  structuredContent?: Record<string, unknown>;
  isError?: boolean;
}

export interface CallOutcome {
  readonly result: ToolResult;
  readonly outcome: string;
  readonly rows: number;
}

/** Milliseconds; a longer `setTimeout` fires at once. */
const longestTimer = 2 ** 31 - 1;
/** Characters of JSON that one answer may hold: far more than a model can read. */
const maxResultLength = 1024 * 1024;
/** An answer about bad arguments names this many faults, each cut to this many characters. */
const [maxIssues, maxIssueLength] = [10, 200];

/** Runs one tool for one caller. Never throws: whatever happens becomes an answer to the model. */
export async function runTool(
  { tool, input }: RegisteredTool,
  args: unknown,
  caller: Caller,
  log: Log,
): Promise<CallOutcome> {
  const about = { requestId: caller.requestId, tenant: caller.tenant.id, tool: tool.name };
  let opened: OpenedCall | undefined;
  const done = (result: ToolResult, outcome: string): CallOutcome => ({
    result,
    outcome,
    rows: opened?.db.stats().rows ?? 0,
  });

  const stop = new AbortController();
  const left = setTimeout(
    () => stop.abort(new TenantryError('deadline_exceeded', 'The deadline has passed.')),
    Math.min(caller.deadline - Date.now(), longestTimer),
  );
  const gone = () => stop.abort(new TenantryError('aborted', 'The caller is gone.'));
  if (caller.signal.aborted) gone();
  caller.signal.addEventListener('abort', gone, { once: true });

  try {
    const parsed = await input.safeParseAsync(args ?? {});
    if (!parsed.success) return done(failed(badArguments(parsed.error)), 'bad_arguments');

    const mode = tool.annotations.readOnlyHint ? 'r' : 'w';
    opened = await caller.tenant.open(tool.name, { mode, deadline: caller.deadline, signal: stop.signal });
    const helpers: ToolHelpers = {
      db: opened.db,
      cursor: opened.cursor,
      tenant: { id: caller.tenant.id, slug: caller.tenant.slug },
      principal: caller.principal.principal,
      signal: stop.signal,
      log: {
        info: (message, fields) => log('info', message, { ...fields, ...about }),
        warn: (message, fields) => log('warn', message, { ...fields, ...about }),
      },
    };
    // A tool that ignores its signal must not hold the caller past the deadline.
    const output = await Promise.race([tool.run(parsed.data, helpers), aborted(stop.signal)]);

    const checked = await tool.output.safeParseAsync(output);
    if (!checked.success) {
      // Paths and expectations only: what the tool returned is the tenant's data.
      log('error', 'a tool broke its output schema', { ...about, issues: issuesOf(checked.error) });
      return done(failed(failureOf(undefined)), 'invalid_output');
    }
    const text = JSON.stringify(checked.data);
    if (text.length > maxResultLength)
      throw new TenantryError('result_too_large', 'The answer is too large.');
    return done({ content: [{ type: 'text', text }], structuredContent: checked.data }, 'ok');
  } catch (thrown) {
    const error = unwrapped(thrown);
    const failure = failureOf(error);
    if (failure.fault) log('error', 'a tool failed', { ...about, ...faultFields(error) });
    // The caller is told of values; it may as well be a right that is missing, or the tool's own.
    else if (error instanceof QueryError)
      log('warn', 'a statement was refused', { ...about, ...faultFields(error) });
    return done(failed(failure), failure.outcome);
  } finally {
    clearTimeout(left);
    caller.signal.removeEventListener('abort', gone);
  }
}

/** `_meta` carries the same for programs: what happened, and when trying again makes sense. */
export function failed({ outcome, text, retryAfterSeconds }: Omit<Failure, 'fault'>): ToolResult {
  return {
    content: [{ type: 'text', text }],
    isError: true,
    _meta: {
      'tenantry/code': outcome,
      ...(retryAfterSeconds && { 'tenantry/retryAfterSeconds': retryAfterSeconds }),
    },
  };
}

function badArguments(error: z.ZodError): Omit<Failure, 'fault'> {
  const text = `These arguments were not accepted:\n${issuesOf(error)
    .map((issue) => `- ${issue}`)
    .join('\n')}\nCorrect them and call again.`;
  return { outcome: 'bad_arguments', text };
}

function issuesOf(error: z.ZodError): string[] {
  return error.issues
    .slice(0, maxIssues)
    .map(({ path, message }) =>
      `${path.join('.') || 'arguments'}: ${message}`.slice(0, maxIssueLength).toWellFormed(),
    );
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
