import { randomUUID } from 'node:crypto';
import { challenge } from '../auth/challenge.ts';
import type { Principal } from '../auth/principal.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { isObject, type Message, parseMessage, readBody } from './bounds.ts';
import type { AdmittedTenant, Log } from './call.ts';
import { readableBy } from './cross-origin.ts';
import { createExchange, type Family } from './exchange.ts';
import type { LegacyExtension } from './legacy.ts';
import type { ModernExtension } from './modern.ts';
import { probeTool } from './probe.ts';
import { type Refusal, refusalResponse, rpc, tenantRefusals } from './refusal.ts';
import { createRegistry, type ToolList } from './registry.ts';
import type { Tool } from './tool.ts';
import { faultFields } from './tool-error.ts';

export interface ServerInfo {
  readonly name: string;
  readonly title: string;
  readonly version: string;
}

export interface EndpointOptions {
  readonly tools: readonly Tool[];
  readonly info: ServerInfo;
  /** The resource identifier, for challenges. */
  readonly publicUrl: string;
  /** Origins whose pages may call; a gateway answers their preflight requests. */
  readonly allowedOrigins: readonly string[];
  /**
   * Finds the principal's tenant, before anything of the request is carried out.
   * @throws TenantryError `tenant_not_served`, `tenant_suspended`, `key_revoked`, `busy`, `unavailable`
   */
  admit(principal: Principal): Promise<AdmittedTenant>;
  readonly log: Log;
  /** What tests serve beside the tools, per protocol family; production gives none. */
  readonly extend?: { readonly legacy?: LegacyExtension; readonly modern?: ModernExtension };
}

/** `deadline`: Unix time, ms. Never rejects. */
export type Endpoint = (
  request: Request,
  principal: Principal,
  deadline: number,
  requestId?: string,
) => Promise<Response>;

/** The MCP endpoint behind authentication: one request, one protocol server, no state between two requests. */
export function createEndpoint(options: EndpointOptions): Endpoint {
  const { info, log, extend } = options;
  const registry = createRegistry(options.tools, [probeTool]);
  const insufficientScope = (needed: readonly string[]): Refusal => ({
    status: 403,
    rpc: rpc.refused,
    code: 'insufficient_scope',
    message: `The token lacks a scope. This tool needs: ${needed.join(' ')}`,
    headers: { 'www-authenticate': challenge(options.publicUrl, needed, 'insufficient_scope') },
    data: { scopes: needed },
  });

  const answer: Endpoint = async (request, principal, deadline, requestId = randomUUID()) => {
    const started = performance.now();
    let tenant: AdmittedTenant | undefined;
    /** One line a call, and one for whatever was refused; these fields and no others. */
    const record = (outcome: string, tool: string | undefined, rows: number) =>
      log('info', 'call', {
        requestId,
        tenant: tenant?.id ?? principal.tenant,
        principal: principal.principal,
        tool: tool ?? null,
        strategy: tenant?.strategy ?? null,
        epoch: tenant?.epoch ?? null,
        ms: Math.round((performance.now() - started) * 10) / 10,
        rows,
        outcome,
      });
    const refuse = (refusal: Refusal, id?: string | number | null) => {
      record(refusal.code, undefined, 0);
      return refusalResponse(refusal, id);
    };

    let id: string | number | null = null;
    try {
      // Not logged: clients of the older revisions probe every server for a stream this way.
      if (request.method !== 'POST') return refusalResponse(notPost);
      const early = refusalOf(request, options.allowedOrigins);
      if (early) return refuse(early);
      const body = await readBody(request);
      if ('refusal' in body) return refuse(body.refusal);
      const parsed = parseMessage(body.ok);
      if ('refusal' in parsed) return refuse(parsed.refusal);
      const message = parsed.ok;
      if (typeof message.method === 'string') id = (message.id as string | number | undefined) ?? null;

      tenant = await options.admit(principal);

      const family = familyOf(request, message);
      const caller = {
        requestId,
        principal,
        granted: new Set(principal.scopes.split(' ')),
        deadline,
        signal: request.signal,
        tenant,
      };
      const exchange = createExchange(registry, family, caller, log, insufficientScope);
      const response =
        family === 'modern'
          ? await (await import('./modern.ts')).serve(request, message, exchange, info, extend?.modern)
          : await (await import('./legacy.ts')).serve(request, message, exchange, info, extend?.legacy);

      const { called, listed, refusal } = exchange;
      if (called) record(called.outcome, called.tool, called.rows);
      else if (response.status >= 400) record('protocol_refused', undefined, 0);
      if (refusal) return refusalResponse(refusal, id);
      if (!response.headers.has('cache-control')) response.headers.set('cache-control', 'no-store');
      return listed ? await withTools(response, listed) : response;
    } catch (error) {
      const refusal = refusalFor(error);
      if (refusal === internal) log('error', 'a request failed', { requestId, ...faultFields(error) });
      return refuse(refusal, id);
    }
  };

  return async (request, ...more) => {
    const response = await answer(request, ...more);
    const origin = request.headers.get('origin');
    if (origin !== null && options.allowedOrigins.includes(origin))
      for (const [name, value] of Object.entries(readableBy(origin))) response.headers.set(name, value);
    return response;
  };
}

const noTools = '"tools":[]';

/** The protocol server's answer with the list that it has not written. In a text of the client's the quotes are escaped. */
async function withTools(response: Response, { json }: ToolList): Promise<Response> {
  const body = await response.text();
  const [before, ...after] = body.split(noTools);
  if (after.length !== 1)
    throw new TypeError('The protocol server answered with another list than it was given.');
  return new Response(
    Buffer.concat([Buffer.from(`${before}"tools":`), json, Buffer.from(after[0]!)]),
    response,
  );
}

/**
 * A request belongs to revision 2026-07-28 or later when its body claims it (or, without a claim, its header), as that
 * revision's own package decides; `initialize` exists in older ones only. Asked here so that only the family in use is loaded.
 */
function familyOf(request: Request, message: Message): Family {
  const meta = isObject(message.params) ? message.params._meta : undefined;
  const claim = isObject(meta) ? meta['io.modelcontextprotocol/protocolVersion'] : undefined;
  const header = request.headers.get('mcp-protocol-version') ?? undefined;
  if (message.method === 'initialize') return isModern(claim) || isModern(header) ? 'modern' : 'legacy';
  return claim !== undefined || isModern(header) ? 'modern' : 'legacy';
}

/** Revisions are dates, so they sort as text. */
const isModern = (version: unknown): boolean => typeof version === 'string' && version >= '2026-07-28';

/** What can be refused without reading the body. */
function refusalOf(request: Request, allowedOrigins: readonly string[]): Refusal | undefined {
  const origin = request.headers.get('origin');
  // Absent outside browsers. A page elsewhere must not use a browser's network position (DNS rebinding) to get here.
  if (origin !== null && !allowedOrigins.includes(origin)) return foreignOrigin;
  if (namesTenant(request)) return tenantNamed;
  if (!/^application\/json\s*(;|$)/i.test(request.headers.get('content-type') ?? '')) return notJsonType;
  return undefined;
}

const tenantName = /^(x-)?(amz-)?tenant([-_](id|slug|name))?$/i;

/** Ignoring it would leave the caller believing that it chose: the token alone says whose data this is. */
function namesTenant(request: Request): boolean {
  return [...request.headers.keys()].some((name) => tenantName.test(name));
}

const tenantNamed: Refusal = {
  status: 400,
  rpc: rpc.invalidRequest,
  code: 'tenant_named',
  message: 'The tenant comes from the token alone: leave it out of the headers.',
};
const foreignOrigin: Refusal = {
  status: 403,
  rpc: rpc.refused,
  code: 'origin_refused',
  message: 'Requests from this Origin are not accepted.',
};
const notPost: Refusal = {
  status: 405,
  rpc: rpc.refused,
  code: 'method_not_allowed',
  message: 'This endpoint is stateless: only POST is served.',
  headers: { allow: 'POST' },
};
const notJsonType: Refusal = {
  status: 415,
  rpc: rpc.refused,
  code: 'unsupported_media_type',
  message: 'Send Content-Type: application/json.',
};
const internal: Refusal = {
  status: 500,
  rpc: rpc.internal,
  code: 'internal',
  message: 'The request failed through no fault of yours. The failure was recorded.',
};

/** Before a tool runs: nothing was carried out. */
function refusalFor(error: unknown): Refusal {
  if (error instanceof RetryableError) {
    const seconds = error.retryAfterSeconds;
    return {
      status: 503,
      rpc: rpc.refused,
      code: error.code,
      message: `The service can't answer right now and nothing was changed. Try again in ${seconds} s.`,
      headers: { 'retry-after': String(Math.ceil(seconds)) },
      data: { retryAfterSeconds: seconds },
    };
  }
  return (error instanceof TenantryError && tenantRefusals[error.code]) || internal;
}
