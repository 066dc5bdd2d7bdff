import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type {
  APIGatewayAuthorizerResult,
  APIGatewayProxyEvent,
  APIGatewayRequestAuthorizerEvent,
} from 'aws-lambda';
import type { Route } from '../../endpoint.ts';

/** A request as API Gateway's REST API (payload 1.0) describes it to both functions. */
export interface GatewayRequest {
  readonly requestId: string;
  readonly route: Route;
  readonly message: IncomingMessage;
  readonly path: string;
  readonly query: URLSearchParams;
}

const stage = 'local';
const apiArn = `arn:aws:execute-api:eu-west-1:111122223333:local/${stage}`;

/** Belong to one connection: API Gateway does not hand them on. */
const hopByHop = new Set([
  'connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
]);

export const methodArn = ({ route }: GatewayRequest) => `${apiArn}/${route.method}${route.path}`;

export function authorizerEvent(request: GatewayRequest): APIGatewayRequestAuthorizerEvent {
  return {
    ...common(request),
    type: 'REQUEST',
    methodArn: methodArn(request),
  } as APIGatewayRequestAuthorizerEvent;
}

/** The body is text: without binary media types, bytes that are no UTF-8 are replaced. */
export function proxyEvent(
  request: GatewayRequest,
  body: Buffer,
  verdict: APIGatewayAuthorizerResult | undefined,
): APIGatewayProxyEvent {
  const event = common(request);
  // API Gateway hands the authorizer's context over as text, whatever it was.
  const context = Object.entries(verdict?.context ?? {}).map(([key, value]) => [key, String(value)]);
  const authorizer = verdict && { principalId: verdict.principalId, ...Object.fromEntries(context) };
  return {
    ...event,
    requestContext: { ...event.requestContext, authorizer },
    body: body.length === 0 ? null : body.toString('utf8'),
    isBase64Encoded: false,
  } as APIGatewayProxyEvent;
}

function common({ requestId, route, message, path, query }: GatewayRequest) {
  const multiValueHeaders: Record<string, string[]> = {};
  for (let i = 0; i < message.rawHeaders.length; i += 2) {
    const name = message.rawHeaders[i]!;
    if (hopByHop.has(name.toLowerCase())) continue;
    multiValueHeaders[name] = [...(multiValueHeaders[name] ?? []), message.rawHeaders[i + 1]!];
  }
  const sourceIp = message.socket.remoteAddress ?? '127.0.0.1';
  multiValueHeaders['X-Forwarded-For'] = [sourceIp];
  multiValueHeaders['X-Forwarded-Proto'] = ['http'];
  multiValueHeaders['X-Amzn-Trace-Id'] = [`Root=1-${randomUUID()}`];
  const names = [...new Set(query.keys())];
  const multiValueQuery = Object.fromEntries(names.map((name) => [name, query.getAll(name)]));
  return {
    resource: route.path,
    path,
    httpMethod: route.method,
    headers: lastOf(multiValueHeaders),
    multiValueHeaders,
    queryStringParameters: names.length > 0 ? lastOf(multiValueQuery) : null,
    multiValueQueryStringParameters: names.length > 0 ? multiValueQuery : null,
    pathParameters: null,
    stageVariables: null,
    requestContext: {
      accountId: '111122223333',
      apiId: 'local',
      domainName: message.headers.host,
      extendedRequestId: requestId,
      httpMethod: route.method,
      identity: { sourceIp, userAgent: message.headers['user-agent'] ?? null },
      path: `/${stage}${path}`,
      protocol: `HTTP/${message.httpVersion}`,
      requestId,
      requestTimeEpoch: Date.now(),
      resourceId: route.path,
      resourcePath: route.path,
      stage,
    },
  };
}

const lastOf = (values: Record<string, string[]>) =>
  Object.fromEntries(Object.entries(values).map(([name, list]) => [name, list.at(-1)!]));
