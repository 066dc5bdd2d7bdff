import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { APIGatewayAuthorizerResult, APIGatewayProxyResult } from 'aws-lambda';
import { sendableHeaders } from '../../../functions/lib/mcp/cross-origin.ts';
import {
  type EndpointFacts,
  type GatewayResponse,
  gatewayResponses,
  metadataHeaders,
  preflightMaxAgeSeconds,
  preflightPath,
  protectedResourceMetadata,
  type Route,
  routes,
} from '../../endpoint.ts';
import { functionNamed } from '../../functions.ts';
import { type LambdaHost, PayloadTooLarge } from '../lambda/host.ts';
import { isHead, writeGatewayResponse, writeHead } from './answer.ts';
import { authorize } from './authorize.ts';
import { type GatewayRequest, proxyEvent } from './event.ts';

/** API Gateway's limits. */
const maxBodyBytes = 10 * 1024 * 1024;
const unstreamedMs = 29_000;
const delimiter = Buffer.alloc(8);

export interface GatewayOptions {
  port: number;
  lambda: LambdaHost;
  facts: EndpointFacts;
}

export interface Gateway {
  readonly port: number;
  close(): Promise<void>;
}

/** HTTP on 127.0.0.1 that treats requests and answers as API Gateway's REST API does where that is felt. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const server = createServer((message, response) => {
    serve(options, message, response).catch((error: unknown) => {
      console.error('gateway:', error);
      response.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(options.port, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as { port: number }).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** API Gateway's own status of each response type that can occur here; `infra/endpoint.ts` may set another. */
const statusOf = {
  UNAUTHORIZED: 401,
  ACCESS_DENIED: 403,
  MISSING_AUTHENTICATION_TOKEN: 403,
  REQUEST_TOO_LARGE: 413,
  AUTHORIZER_FAILURE: 500,
  AUTHORIZER_CONFIGURATION_ERROR: 500,
  INTEGRATION_FAILURE: 504,
  INTEGRATION_TIMEOUT: 504,
} as const;

type ResponseType = keyof typeof statusOf;

async function serve(
  options: GatewayOptions,
  message: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const requestId = randomUUID();
  response.setHeader('x-amzn-requestid', requestId);
  response.on('error', () => {});
  const refuse = (type: ResponseType, context: Record<string, unknown> = {}) => {
    if (response.headersSent) return void response.destroy();
    const responses: Record<string, GatewayResponse> = gatewayResponses(options.facts);
    const answer = responses[type] ?? responses[statusOf[type] < 500 ? 'DEFAULT_4XX' : 'DEFAULT_5XX']!;
    writeGatewayResponse(response, answer, statusOf[type], { requestId, ...context });
    // Read to its end, or the client is still writing when the answer comes and may never see it.
    message.resume();
  };

  if (!isLoopback(message.headers.host)) {
    // A page elsewhere may make its own name point here and then read the answers; it can't send our name.
    response.writeHead(421, { 'content-type': 'application/json' }).end('{"error":"misdirected_request"}');
    return;
  }
  const [path = '', search = ''] = (message.url ?? '').split('?', 2);
  const { allowedOrigins } = options.facts;
  if (message.method === 'OPTIONS' && path === preflightPath && allowedOrigins.length > 0)
    return answerPreflight(allowedOrigins, message, response);
  const route = routes.find(
    (candidate: Route) => candidate.path === path && candidate.method === message.method,
  );
  if (!route) return refuse('MISSING_AUTHENTICATION_TOKEN');
  if (route.target === 'metadata') {
    response.writeHead(200, metadataHeaders).end(JSON.stringify(protectedResourceMetadata(options.facts)));
    return;
  }

  const request: GatewayRequest = { requestId, route, message, path, query: new URLSearchParams(search) };
  let verdict: APIGatewayAuthorizerResult | undefined;
  if (route.authorized) {
    const decision = await authorize(options.lambda, request);
    if ('refused' in decision) {
      return refuse(decision.refused, 'context' in decision ? { authorizer: decision.context } : {});
    }
    verdict = decision.allowed;
  }
  const body = await readBody(message);
  if (body === undefined) return refuse('REQUEST_TOO_LARGE');
  try {
    const event = proxyEvent(request, body, verdict);
    if (functionNamed(route.target).streaming) await stream(options.lambda, route.target, event, response);
    else await buffered(options.lambda, route.target, event, response);
  } catch (error) {
    if (error instanceof PayloadTooLarge) return refuse('REQUEST_TOO_LARGE');
    console.error(`${route.target}: ${error instanceof Error ? error.message : error}`);
    refuse(error instanceof IntegrationTimeout ? 'INTEGRATION_TIMEOUT' : 'INTEGRATION_FAILURE');
  }
}

/** As the library has API Gateway do it: the first origin for whoever is none of them. */
function answerPreflight(
  allowedOrigins: readonly string[],
  { headers: { origin = '' } }: IncomingMessage,
  response: ServerResponse,
): void {
  const methods = (routes as readonly Route[]).filter(({ path }) => path === preflightPath);
  response.writeHead(204, {
    'Access-Control-Allow-Origin': allowedOrigins.includes(origin) ? origin : allowedOrigins[0],
    'Access-Control-Allow-Methods': methods.map(({ method }) => method).join(','),
    'Access-Control-Allow-Headers': sendableHeaders.join(','),
    'Access-Control-Max-Age': String(preflightMaxAgeSeconds),
    Vary: 'Origin',
  });
  response.end();
}

/** Passes a streamed answer on as it comes: a JSON head, eight NULs, then the body. */
async function stream(
  lambda: LambdaHost,
  name: string,
  event: unknown,
  response: ServerResponse,
): Promise<void> {
  let head: Buffer | undefined = Buffer.alloc(0);
  let fault: unknown;
  await lambda.stream(name, event, (data) => {
    if (head === undefined) return void response.write(data);
    head = Buffer.concat([head, data]);
    const end = head.indexOf(delimiter);
    if (end < 0 || fault !== undefined) return;
    try {
      writeHead(response, JSON.parse(head.toString('utf8', 0, end)));
    } catch (error) {
      fault = error;
      return;
    }
    response.flushHeaders();
    response.write(head.subarray(end + delimiter.length));
    head = undefined;
  });
  if (fault !== undefined) throw fault;
  if (head !== undefined) throw new Error(`${name} ended without a status: it has to write before it ends.`);
  response.end();
}

export class IntegrationTimeout extends Error {}

export async function buffered(
  lambda: LambdaHost,
  name: string,
  event: unknown,
  response: ServerResponse,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new IntegrationTimeout()), unstreamedMs);
  });
  const result = await Promise.race([lambda.invoke(name, event), late]).finally(() => clearTimeout(timer));
  if (!isHead(result)) throw new Error(`${name} did not answer in the form of a proxy integration.`);
  const { body = '', isBase64Encoded } = result as APIGatewayProxyResult;
  writeHead(response, result);
  response.end(Buffer.from(body, isBase64Encoded ? 'base64' : 'utf8'));
}

/** @returns undefined when it is larger than API Gateway takes */
export async function readBody(message: IncomingMessage): Promise<Buffer | undefined> {
  if (Number(message.headers['content-length'] ?? 0) > maxBodyBytes) return undefined;
  const chunks: Buffer[] = [];
  let size = 0;
  return new Promise((resolve, reject) => {
    message.once('error', reject);
    message.once('end', () => resolve(Buffer.concat(chunks)));
    message.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > maxBodyBytes) resolve(undefined);
      else chunks.push(chunk);
    });
  });
}

export const isLoopback = (host = '') => /^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/i.test(host);
