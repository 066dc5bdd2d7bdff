import { probeScope, productAuth } from '../auth/principal.ts';
import { type Caller, failed, type Log, runTool, type ToolResult } from './call.ts';
import { type Refusal, rpc, tenantRefusals } from './refusal.ts';
import {
  fitsSchema,
  mayUse,
  type RegisteredTool,
  type Registry,
  type ToolDescriptor,
  type ToolList,
} from './registry.ts';

export interface CallParams {
  readonly name: string;
  readonly arguments?: unknown;
}

/** What the tools mean for one request; the protocol families turn it into their own messages. */
export interface Exchange {
  readonly tools: readonly ToolDescriptor[];
  /** The tools as the protocol server shall list them: none, because their JSON is put into its answer as it is. */
  list(): readonly [];
  call(params: CallParams): Promise<ToolResult>;
  /** Whether the registry, and not an extension, answers for this name. */
  has(name: unknown): boolean;
  /** Set when the answer is a list. */
  listed?: ToolList;
  /** For the log; undefined until a tool was called. */
  called?: { readonly tool: string | undefined; readonly outcome: string; readonly rows: number };
  /** Set when the answer has to be this refusal, whatever the protocol server says. */
  refusal?: Refusal;
}

export type Family = 'legacy' | 'modern';

/** Of both families' servers. Needed for elicitation only; given so that no validator is built per request. */
export const jsonSchemaValidator = {
  getValidator(): never {
    throw new TypeError('A stateless server has nothing to validate.');
  },
};

const isProduct = ({ principal, granted }: Caller) =>
  principal.auth === productAuth || (principal.auth.startsWith('key:') && granted.has(probeScope));

function offered(found: RegisteredTool | undefined, caller: Caller): RegisteredTool | undefined {
  if (found === undefined || !fitsSchema(found.tool, caller.tenant.schemaVersion)) return undefined;
  return found.isInternal && !isProduct(caller) ? undefined : found;
}

/** In band, as the newer family's package answers wrong parameters. */
const unknownTool: Refusal = {
  status: 200,
  rpc: rpc.invalidParams,
  code: 'unknown_tool',
  message: 'There is no such tool for this caller. Use a name that tools/list gives.',
};

export function createExchange(
  registry: Registry,
  family: Family,
  caller: Caller,
  log: Log,
  insufficientScope: (needed: readonly string[]) => Refusal,
): Exchange {
  // Clients of the modern family ask for a scope they lack when they are refused; the older ones can't, and only see what they may use.
  const visible = () =>
    family === 'modern'
      ? registry.list(caller.tenant.schemaVersion)
      : registry.listFor(caller.granted, caller.tenant.schemaVersion);
  const exchange: Exchange = {
    get tools() {
      return visible().tools;
    },
    list() {
      exchange.listed = visible();
      return [];
    },
    has: (name) => registry.find(name) !== undefined,
    async call(params) {
      const found = offered(registry.find(params.name), caller);
      if (!found || !mayUse(found.tool, caller.granted)) {
        const outcome = found ? 'insufficient_scope' : 'unknown_tool';
        exchange.called = { tool: found?.tool.name, outcome, rows: 0 };
        // In the older family "not there" and "not for you" read the same, and are a tool's error as its package has it.
        if (family === 'modern')
          exchange.refusal = found ? insufficientScope(found.tool.scopes) : unknownTool;
        return failed({ outcome: unknownTool.code, text: unknownTool.message });
      }
      const { result, outcome, rows } = await runTool(found, params.arguments, caller, log);
      exchange.called = { tool: found.tool.name, outcome, rows };
      // The home knew before this environment's memory of the catalog did: the same answer as from the catalog.
      const refusal = tenantRefusals[outcome];
      if (refusal) exchange.refusal = refusal;
      return result;
    },
  };
  return exchange;
}
