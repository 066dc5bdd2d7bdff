import { once } from 'node:events';
import type { Writable } from 'node:stream';
import type { APIGatewayProxyEvent, StreamifyHandler } from 'aws-lambda';
import type { Principal } from '../auth/principal.ts';
import type { Log } from './call.ts';
import type { Endpoint } from './endpoint.ts';
import { type Refusal, refusalResponse, rpc } from './refusal.ts';

/** Kept back from Lambda's own deadline, ms, to end the statement and still answer. */
const margin = 1_000;

/** The endpoint as a Lambda function behind API Gateway's proxy integration. */
export function createHandler(endpoint: Endpoint, log: Log): StreamifyHandler<APIGatewayProxyEvent, void> {
  return async (event, stream, context) => {
    const gone = new AbortController();
    stream.once('close', () => gone.abort());
    // Without a listener a broken connection would end the process, and everybody's calls with it.
    stream.on('error', () => gone.abort());

    const principal = principalOf(event);
    if (!principal) {
      log('error', 'a request arrived without a verdict of the authorizer', {
        requestId: event.requestContext?.requestId,
      });
      return respond(refusalResponse(unauthenticated), stream);
    }
    const request = requestOf(event, gone.signal);
    if (!request) return respond(refusalResponse(malformed), stream);
    const deadline = Date.now() + context.getRemainingTimeInMillis() - margin;
    await respond(await endpoint(request, principal, deadline, event.requestContext.requestId), stream);
  };
}

const unauthenticated: Refusal = {
  status: 401,
  rpc: rpc.refused,
  code: 'unauthenticated',
  message: 'The request is not authenticated.',
};
const malformed: Refusal = {
  status: 400,
  rpc: rpc.invalidRequest,
  code: 'malformed_request',
  message: 'Invalid request: a header or the address is not valid HTTP.',
};

/**
 * The authorizer's verdict: the only source of who is calling. Undefined when any part is missing, which means that
 * the function was reached around the authorizer.
 */
function principalOf(event: APIGatewayProxyEvent): Principal | undefined {
  const { tenant, principal, scopes, auth } = event.requestContext?.authorizer ?? {};
  if (!isText(tenant) || !isText(principal) || !isText(auth) || typeof scopes !== 'string') return undefined;
  return { tenant, principal, scopes, auth };
}

const isText = (value: unknown): value is string => typeof value === 'string' && value !== '';

/** Undefined for a header or an address that HTTP does not allow. */
export function requestOf(event: APIGatewayProxyEvent, signal: AbortSignal): Request | undefined {
  try {
    const headers = new Headers();
    for (const [name, values] of Object.entries(event.multiValueHeaders ?? event.headers ?? {})) {
      // A header sent twice arrives joined by a comma, so it equals neither value where one is expected.
      for (const value of [values ?? []].flat()) headers.append(name, value);
    }
    // The gateway decides which host and path end here; nothing behind it looks at the address.
    const url = new URL(event.path, 'https://endpoint.invalid');
    const method = event.httpMethod;
    const body = event.body === null || method !== 'POST' ? null : bytesOf(event.body, event.isBase64Encoded);
    return new Request(url, { method, headers, body, signal });
  } catch {
    return undefined;
  }
}

const bytesOf = (body: string, isBase64: boolean) => (isBase64 ? Buffer.from(body, 'base64') : body);

/** Belong to one connection; the gateway sets its own. */
const hopByHop = new Set(['connection', 'keep-alive', 'transfer-encoding']);

/** Streams an answer out through Lambda's response stream. */
async function respond(response: Response, stream: Writable): Promise<void> {
  const headers: Record<string, string> = {};
  response.headers.forEach((value, name) => {
    if (!hopByHop.has(name)) headers[name] = value;
  });
  const out = awslambda.HttpResponseStream.from(stream, { statusCode: response.status, headers });
  // Status and headers leave with the first write only, so an answer without a body needs an empty one.
  if (response.body === null) out.write('');
  else {
    for await (const chunk of response.body) {
      if (out.destroyed) return;
      if (!out.write(chunk)) await Promise.race([once(out, 'drain'), once(out, 'close')]);
    }
  }
  out.end();
}
