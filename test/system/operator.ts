import { randomUUID } from 'node:crypto';
import { expect } from 'vitest';
import type { Deployment } from './deployment.ts';

/** Asks again until it is so, or `times` have been asked for: then the last answer. */
export async function until<T>(
  ask: () => Promise<T>,
  isDone: (value: T) => boolean,
  times = 600,
): Promise<T> {
  for (let asked = 1; ; asked++) {
    const value = await ask();
    if (isDone(value) || asked === times) return value;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

export const result = (body: string) =>
  JSON.parse(body.startsWith('{') ? body : /^data: (\{.*)$/m.exec(body)![1]!).result;

/** What an operator and an agent do with a deployment: through the admin function, and through authorizer and MCP function. */
export function operate({ host }: Pick<Deployment, 'host'>) {
  const admin = async (method: string, path: string, body?: object) => {
    const answer = (await host.invoke('admin', {
      httpMethod: method,
      path,
      headers: { 'content-type': 'application/json' },
      multiValueHeaders: { 'content-type': ['application/json'] },
      queryStringParameters: null,
      multiValueQueryStringParameters: null,
      requestContext: { requestId: randomUUID(), identity: {} },
      body: body === undefined ? null : JSON.stringify(body),
      isBase64Encoded: false,
    })) as { statusCode: number; body: string };
    return { status: answer.statusCode, body: JSON.parse(answer.body) };
  };

  /** Waits for the operation that an answer tells of. */
  async function done({ status, body }: Awaited<ReturnType<typeof admin>>) {
    expect(status, JSON.stringify(body)).toBeLessThan(300);
    const operation = await until(
      () => admin('GET', `/operations/${body.operation.id}`),
      ({ body }) => body.state !== 'running',
    );
    expect(operation.body, JSON.stringify(operation.body)).toMatchObject({ state: 'done' });
  }

  return {
    admin,
    done,
    create: async (slug: string, more: object) => done(await admin('POST', '/tenants', { slug, ...more })),

    async keyOf(slug: string, scopes = ['inventory:read', 'inventory:write']): Promise<string> {
      const { body } = await admin('POST', `/tenants/${slug}/keys`, { name: 'agent', scopes, days: 1 });
      return body.token;
    },

    /** As API Gateway: the authorizer first, its context into the function's event; the answer as it came. */
    async call(
      token: string,
      method: string,
      params: object = {},
      accept = 'application/json, text/event-stream',
    ) {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept };
      const event = {
        httpMethod: 'POST',
        path: '/mcp',
        resource: '/mcp',
        methodArn: 'arn:aws:execute-api:eu-west-1:111122223333:api/live/POST/mcp',
        headers,
        multiValueHeaders: Object.fromEntries(
          Object.entries({ ...headers, 'mcp-protocol-version': '2025-11-25' }).map(([name, value]) => [
            name,
            [value],
          ]),
        ),
        requestContext: { requestId: randomUUID() } as Record<string, unknown>,
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
        isBase64Encoded: false,
      };
      const { context } = (await host.invoke('authorizer', event)) as { context: object };
      event.requestContext.authorizer = context;
      const chunks: Buffer[] = [];
      await host.stream('mcp', event, (chunk) => chunks.push(Buffer.from(chunk)));
      const [head, body] = Buffer.concat(chunks).toString('utf8').split('\0\0\0\0\0\0\0\0');
      return {
        ...(JSON.parse(head!) as { statusCode: number; headers: Record<string, string> }),
        body: body!,
        chunks,
      };
    },
  };
}
