import { Server, type ServerOptions } from '@modelcontextprotocol/sdk/server/index.js';
import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import {
  CallToolRequestSchema,
  type CallToolResult,
  ErrorCode,
  InitializeRequestSchema,
  ListToolsRequestSchema,
  type ListToolsResult,
  McpError,
} from '@modelcontextprotocol/sdk/types.js';
import { isObject, type Message } from './bounds.ts';
import type { ServerInfo } from './endpoint.ts';
import { type Exchange, jsonSchemaValidator } from './exchange.ts';
import { refusalResponse, rpc } from './refusal.ts';

/** Registers more with the protocol server of one request, after the product's own handlers. */
export interface LegacyExtension {
  readonly capabilities: NonNullable<ServerOptions['capabilities']>;
  register(server: Server, exchange: Exchange): void;
}

/** Parsed here first: the package reports wrong parameters as its own internal error, with its schema's words. */
const requests: Record<string, { safeParse(value: unknown): { success: boolean } }> = {
  initialize: InitializeRequestSchema,
  'tools/list': ListToolsRequestSchema,
  'tools/call': CallToolRequestSchema,
};

/** Serves one message of a revision up to 2025-11-25, statelessly: no session id, no stream but the answer itself. */
export async function serve(
  request: Request,
  message: Message,
  exchange: Exchange,
  info: ServerInfo,
  extension?: LegacyExtension,
): Promise<Response> {
  const schema =
    typeof message.method === 'string' && Object.hasOwn(requests, message.method) && requests[message.method];
  if (schema && !schema.safeParse(message).success) return invalidParams(message);

  const capabilities = { tools: {}, ...extension?.capabilities };
  const server = new Server(info, { capabilities, jsonSchemaValidator });
  server.setRequestHandler(ListToolsRequestSchema, ({ params }) => {
    if (params?.cursor !== undefined)
      throw new McpError(ErrorCode.InvalidParams, 'The list has one page: send no cursor.');
    return { tools: exchange.list() } as unknown as ListToolsResult;
  });
  server.setRequestHandler(
    CallToolRequestSchema,
    ({ params }) => exchange.call(params) as Promise<CallToolResult>,
  );
  extension?.register(server, exchange);

  const transport = new WebStandardStreamableHTTPServerTransport({
    // The registry's tools send nothing before their result, so one JSON body is all there is to send.
    enableJsonResponse: !(extension && callsForeignTool(message, exchange)),
  });
  // Their optional properties lack `| undefined`, which exactOptionalPropertyTypes takes seriously.
  await server.connect(transport as Transport);
  return transport.handleRequest(request, { parsedBody: withoutTask(message) });
}

/** Revision 2025-11-25: who doesn't offer tasks ignores the wish for one. The package would report a fault of its own. */
function withoutTask(message: Message): Message {
  if (!isObject(message.params) || message.params.task === undefined) return message;
  const { task: _, ...params } = message.params;
  return { ...message, params };
}

function callsForeignTool({ method, params }: Message, exchange: Exchange): boolean {
  return method === 'tools/call' && isObject(params) && !exchange.has(params.name);
}

function invalidParams(message: Message): Response {
  const refusal = {
    // In band, as the packages answer wrong parameters.
    status: 200,
    rpc: rpc.invalidParams,
    code: 'invalid_params',
    message: `Invalid parameters for ${message.method}.`,
  };
  return refusalResponse(refusal, (message.id as string | number | undefined) ?? null);
}
