import { createServer, request } from 'node:http';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { functions } from '../../infra/functions.ts';
import { startAdminGateway } from '../../infra/local/gateway/admin.ts';
import { type Gateway, startGateway } from '../../infra/local/gateway/gateway.ts';
import { LambdaHost } from '../../infra/local/lambda/host.ts';

let lambda: LambdaHost;
let gateway: Gateway;
let base: string;
const root = fileURLToPath(new URL('../..', import.meta.url));
const resource = 'https://mcp.example.com/mcp';

beforeAll(async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  lambda = new LambdaHost({
    root,
    functions: functions.map((row) => ({ ...row, entry: `test/local/functions/${row.name}.ts` })),
    variables: (name) => ({ ONLY: name }),
    log: () => {},
    onInitError: (_name, error) => {
      throw error;
    },
  });
  const facts = {
    publicUrl: resource,
    issuers: ['https://id.example.com'],
    scopes: ['inventory:read'],
    allowedOrigins: ['https://app.example.com', 'https://other.example.com'],
  };
  gateway = await startGateway({ port: 0, lambda, facts });
  base = `http://127.0.0.1:${gateway.port}`;
});
afterAll(async () => {
  await gateway.close();
  await lambda.close();
});

const good = { authorization: 'Bearer good' };
const post = (body: unknown, headers: Record<string, string> = good) =>
  fetch(`${base}/mcp`, {
    method: 'POST',
    headers,
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

describe('who may call', () => {
  test('without a token the answer is 401 with where to log in, for every method: the authorizer’s word', async () => {
    const asked = vi.spyOn(lambda, 'invoke');
    for (const method of ['POST', 'GET', 'DELETE']) {
      const response = await fetch(`${base}/mcp`, { method });
      expect(response.status).toBe(401);
      expect(response.headers.get('www-authenticate')).toBe(
        'Bearer scope="inventory:read", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"',
      );
      expect(await response.json()).toMatchObject({ error: 'unauthorized' });
    }
    // API Gateway answers a missing identity source by itself only where it caches verdicts.
    expect(asked.mock.calls.map(([name]) => name)).toEqual(['authorizer', 'authorizer', 'authorizer']);
    asked.mockRestore();
    expect((await post({ does: 'show' }, { authorization: 'Bearer forged' })).status).toBe(401);
  });

  test('a page of an allowed origin may send a token, and read why it was refused', async () => {
    const asked = (origin: string) => fetch(`${base}/mcp`, { method: 'OPTIONS', headers: { origin } });
    const allowedFor = async (origin: string) => {
      const { status, headers } = await asked(origin);
      expect([status, headers.get('access-control-allow-methods')]).toEqual([204, 'POST,GET,DELETE']);
      expect(headers.get('access-control-allow-headers')).toBe('Authorization,*');
      return headers.get('access-control-allow-origin');
    };
    expect(await allowedFor('https://other.example.com')).toBe('https://other.example.com');
    expect(await allowedFor('https://evil.example.com')).toBe('https://app.example.com');
    const { headers } = await post({}, { authorization: 'Bearer forged', origin: 'https://app.example.com' });
    expect(headers.get('access-control-allow-origin')).toBe('*');
    expect(headers.get('access-control-expose-headers')).toContain('WWW-Authenticate');
  });

  test('with a token, GET and DELETE reach the function', async () => {
    for (const method of ['GET', 'DELETE']) {
      const response = await fetch(`${base}/mcp`, { method, headers: good });
      expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST']);
    }
  });

  test('a denied call gets the authorizer’s challenge', async () => {
    const response = await post({ does: 'show' }, { authorization: 'Bearer narrow' });
    expect(response.status).toBe(403);
    expect(response.headers.get('www-authenticate')).toBe('Bearer error="insufficient_scope"');
    expect(await response.json()).toMatchObject({ error: 'insufficient_scope', scope: 'inventory:write' });
  });

  test.each(['Bearer broken', 'Bearer odd'])(
    'an authorizer at fault (%s) is no 401',
    async (authorization) => {
      const response = await post({ does: 'show' }, { authorization });
      expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1']);
    },
  );

  test('unknown routes and methods are not found', async () => {
    for (const [method, path] of [
      ['GET', '/'],
      ['GET', '/healthz'],
      ['POST', '/health'],
      ['PUT', '/mcp'],
      ['POST', '/mcp/'],
      ['OPTIONS', '/health'],
    ]) {
      expect((await fetch(base + path, { method: method!, headers: good })).status).toBe(404);
    }
  });

  test('the state of the whole is told without a token, with the function’s own status', async () => {
    const answer = await fetch(`${base}/health`);
    expect([answer.status, await answer.json()]).toEqual([503, { status: 'down' }]);
  });

  test('another host name is refused, even for public documents', async () => {
    const status = await new Promise((resolve, reject) => {
      const rebound = {
        host: '127.0.0.1',
        port: gateway.port,
        path: '/mcp',
        headers: { host: 'attacker.example' },
      };
      request(rebound, (response) => resolve(response.resume().statusCode))
        .once('error', reject)
        .end();
    });
    expect(status).toBe(421);
  });
});

test('protected-resource metadata is served at both addresses without a token', async () => {
  for (const path of ['', '/mcp']) {
    const response = await fetch(`${base}/.well-known/oauth-protected-resource${path}`);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(response.headers.get('access-control-allow-origin')).toBe('*');
    expect(await response.json()).toMatchObject({
      resource,
      authorization_servers: ['https://id.example.com'],
    });
  }
});

describe('what the function is given', () => {
  test('the request, and the verdict as text', async () => {
    const response = await fetch(`${base}/mcp?a=1&a=2`, {
      method: 'POST',
      headers: good,
      body: JSON.stringify({ does: 'show', text: 'grün' }),
    });
    const { event } = (await response.json()) as { event: { multiValueHeaders: object } };
    expect(event).toMatchObject({
      httpMethod: 'POST',
      path: '/mcp',
      isBase64Encoded: false,
      body: '{"does":"show","text":"grün"}',
      multiValueQueryStringParameters: { a: ['1', '2'] },
      queryStringParameters: { a: '2' },
      requestContext: { authorizer: { tenant: 'acme', number: '7', principalId: 'somebody' } },
    });
    expect(Object.keys(event.multiValueHeaders).map((name) => name.toLowerCase())).not.toContain(
      'connection',
    );
  });

  test('its own environment variables and no others', async () => {
    const { environment, left } = (await (await post({ does: 'show' })).json()) as {
      environment: Record<string, string>;
      left: number;
    };
    expect(environment.ONLY).toBe('mcp');
    expect(environment.AWS_LAMBDA_FUNCTION_NAME).toBe('tenantry-mcp');
    expect(environment).not.toHaveProperty('PATH');
    expect(environment).not.toHaveProperty('HOME');
    expect(left).toBeGreaterThan(20_000);
    expect(left).toBeLessThanOrEqual(29_000);
  });

  test('no body above API Gateway’s 10 MB, no event above Lambda’s 6 MB', async () => {
    expect((await post('x'.repeat(10 * 1024 * 1024 + 1))).status).toBe(413);
    expect((await post({ does: 'show', padding: 'x'.repeat(6 * 1024 * 1024) })).status).toBe(413);
  });
});

describe('what the client is given', () => {
  test('a challenge of the function under another name', async () => {
    const response = await post({ does: 'challenge' });
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBeNull();
    expect(response.headers.get('x-amzn-remapped-www-authenticate')).toBe('Bearer');
    expect(response.headers.get('set-cookie')).toBe('a=b');
  });

  test('a streamed answer as it comes', async () => {
    let seen = () => {};
    const first = new Promise<void>((resolve) => {
      seen = resolve;
    });
    const acknowledger = createServer((_request, response) => void first.then(() => response.end('two')));
    await new Promise<void>((resolve) => acknowledger.listen(0, '127.0.0.1', resolve));
    const { port } = acknowledger.address() as { port: number };
    const response = await post({ does: 'chunks', acknowledge: `http://127.0.0.1:${port}/` });
    const chunks: string[] = [];
    for await (const chunk of response.body!) {
      chunks.push(Buffer.from(chunk).toString());
      seen();
    }
    acknowledger.close();
    expect(chunks).toEqual(['one', 'two']);
  });

  test('an empty answer only when the function wrote once, as on Lambda', async () => {
    const empty = await post({ does: 'empty' });
    expect([empty.status, await empty.text()]).toEqual([202, '']);
    expect((await post({ does: 'nothing' })).status).toBe(502);
  });

  test.each(['throw', 'exit', 'bad-head'])(
    '502 when the function fails (%s), and it serves again',
    async (does) => {
      const failed = await post({ does });
      expect([failed.status, await failed.json()]).toEqual([
        502,
        expect.objectContaining({ error: 'bad_gateway' }),
      ]);
      expect((await post({ does: 'show' })).status).toBe(200);
    },
  );

  test('a broken connection when it fails in the middle', async () => {
    const response = await post({ does: 'throw-later' });
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow();
  });
});

test('the admin API says why its function has failed, and where there is more', async () => {
  const rows = functions
    .filter(({ name }) => name === 'admin')
    .map((row) => ({ ...row, entry: 'test/local/functions/not-loadable.ts' }));
  const broken = new LambdaHost({
    root,
    functions: rows,
    variables: () => ({}),
    log: () => {},
    onInitError: () => {},
  });
  const admin = await startAdminGateway(broken, async () => '');
  try {
    const headers = { authorization: `Bearer ${admin.token}` };
    const response = await fetch(`http://127.0.0.1:${admin.port}/tenants`, { headers });
    expect(response.status).toBe(502);
    const { error } = (await response.json()) as { error: { message: string } };
    expect(error.message).toMatch(/^The admin function failed: .+ the terminal of `npm start` say more\.$/);
  } finally {
    await admin.close();
    await broken.close();
  }
});
