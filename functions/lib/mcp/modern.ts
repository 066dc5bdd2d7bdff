import {
  createMcpHandler,
  ProtocolError,
  ProtocolErrorCode,
  Server,
  type ServerOptions,
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import type { Message } from './bounds.ts';
import type { ServerInfo } from './endpoint.ts';
import { type Exchange, jsonSchemaValidator } from './exchange.ts';

/** Registers more with the protocol server of one request, after the product's own handlers. */
export interface ModernExtension {
  readonly capabilities: NonNullable<ServerOptions['capabilities']>;
  register(server: Server, exchange: Exchange): void;
}

/** Private: it depends on the token. Fresh for as long as a deployed list may lag in a client, ms. */
const listHint = { cacheScope: 'private', ttlMs: 60_000 } as const;
const cacheHints = { 'tools/list': listHint, 'server/discover': listHint } as const;

const listParams = { params: z.looseObject({ cursor: z.string().optional() }) };

/**
 * Serves one message of revision 2026-07-28. The package checks envelope, versions and headers against the body, in the
 * order the revision demands, before it asks for a server.
 */
export function serve(
  request: Request,
  message: Message,
  exchange: Exchange,
  info: ServerInfo,
  extension?: ModernExtension,
): Promise<Response> {
  const handler = createMcpHandler(
    () => {
      const capabilities = { tools: {}, ...extension?.capabilities };
      const server = new Server(info, { capabilities, jsonSchemaValidator, cacheHints });
      server.setRequestHandler('tools/list', listParams, ({ cursor }) => {
        if (cursor !== undefined)
          throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'The list has one page: send no cursor.');
        return { tools: exchange.list() } as never;
      });
      server.setRequestHandler('tools/call', ({ params }) => exchange.call(params));
      extension?.register(server, exchange);
      return server;
    },
    { legacy: 'reject' },
  );
  return handler.fetch(request, { parsedBody: message });
}
