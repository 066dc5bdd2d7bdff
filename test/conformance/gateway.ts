import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import type { APIGatewayProxyEvent, APIGatewayRequestAuthorizerEvent, Context } from 'aws-lambda';
import { mintApiKey, newSigningKey } from '../../functions/lib/auth/api-key.ts';
import { createAuthorizer } from '../../functions/lib/auth/authorize.ts';
import { createTokenVerifier } from '../../functions/lib/auth/verify-token.ts';
import { createHandler } from '../../functions/lib/mcp/lambda-adapter.ts';
import { acme, testEndpoint } from '../lib/mcp/support.ts';
import { legacyFixtures } from './legacy-fixtures.ts';
import { modernFixtures } from './modern-fixtures.ts';

export interface Gateway {
  /** Where a request needs a token of its own. */
  readonly url: string;
  /** Adds a token to what passes: the suite cannot send one. */
  readonly authenticatedUrl: string;
  close(): Promise<void>;
}

/**
 * What a request meets in production, on loopback: the authorizer with a real signed key, then the function's adapter
 * and the endpoint; only the fixtures are extra.
 */
export async function startGateway(): Promise<Gateway> {
  const key = await newSigningKey();
  const gateway = createServer();
  const proxy = createServer();
  const url = await listen(gateway);
  const authenticatedUrl = await listen(proxy);
  const issuer = 'https://keys.example';

  const authorize = createAuthorizer({
    verify: createTokenVerifier({
      issuers: [],
      apiKeyJwks: { keys: [key.publicKey] },
      apiKeyIssuer: issuer,
      audience: url,
    }),
    resource: url,
    toolScopes: {},
    onRefusal: () => {},
  });
  const { endpoint } = testEndpoint({
    publicUrl: url,
    allowedOrigins: [new URL(authenticatedUrl).origin],
    extend: { legacy: legacyFixtures, modern: modernFixtures },
  });
  const handler = createHandler(endpoint, () => {});

  gateway.on('request', async (message: IncomingMessage, answer: ServerResponse) => {
    const event = await eventOf(message);
    try {
      const { context } = await authorize(event as unknown as APIGatewayRequestAuthorizerEvent);
      event.requestContext.authorizer = context ?? null;
    } catch {
      answer.writeHead(401).end();
      return;
    }
    await handler(
      event,
      new LambdaStream(answer) as never,
      { getRemainingTimeInMillis: () => 29_000 } as Context,
    );
  });

  const token = await mintApiKey(key.privateKey, {
    tenant: acme,
    keyId: 'conformance',
    scopes: ['things:read', 'things:write'],
    expires: new Date(Date.now() + 600_000),
    issuer,
    audience: url,
  });
  proxy.on('request', (message: IncomingMessage, answer: ServerResponse) => {
    const headers = { ...message.headers, authorization: `Bearer ${token}` };
    const onward = request(url, { method: message.method ?? 'GET', headers }, (reply) => {
      answer.writeHead(reply.statusCode ?? 502, reply.headers);
      reply.pipe(answer);
    });
    onward.on('error', () => answer.destroy());
    answer.on('close', () => onward.destroy());
    message.pipe(onward);
  });

  return {
    url,
    authenticatedUrl,
    async close() {
      await Promise.all([proxy, gateway].map(stop));
    },
  };
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
}

function stop(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

async function eventOf(message: IncomingMessage): Promise<APIGatewayProxyEvent> {
  const body = Buffer.concat(await message.toArray());
  const multiValueHeaders: Record<string, string[]> = {};
  for (let index = 0; index < message.rawHeaders.length; index += 2) {
    const name = message.rawHeaders[index]!;
    multiValueHeaders[name] = [...(multiValueHeaders[name] ?? []), message.rawHeaders[index + 1]!];
  }
  return {
    httpMethod: message.method,
    path: message.url,
    multiValueHeaders,
    body: body.length > 0 ? body.toString('base64') : null,
    isBase64Encoded: true,
    methodArn: 'arn:aws:execute-api:local:0:local/local/POST/mcp',
    requestContext: { requestId: 'conformance' },
  } as unknown as APIGatewayProxyEvent;
}

/** Lambda's response stream: status and headers leave with the first write. */
class LambdaStream extends Writable {
  readonly #answer: ServerResponse;
  head: { statusCode: number; headers: Record<string, string> } | undefined;

  constructor(answer: ServerResponse) {
    super();
    this.#answer = answer;
    answer.on('close', () => this.destroy());
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.head) this.#answer.writeHead(this.head.statusCode, this.head.headers);
    this.head = undefined;
    this.#answer.write(chunk);
    done();
  }

  override _final(done: () => void): void {
    this.#answer.end();
    done();
  }
}

const from = (stream: LambdaStream, head: LambdaStream['head']) => Object.assign(stream, { head });
Object.assign(globalThis, { awslambda: { HttpResponseStream: { from } } });
