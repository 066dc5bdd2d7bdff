import type { APIGatewayRequestAuthorizerEvent } from 'aws-lambda';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { mintApiKey, newSigningKey } from '../../functions/lib/auth/api-key.ts';
import type { Authorizer } from '../../functions/lib/auth/authorize.ts';
import { goodClaims, newKey, resource, serveKeys, sign, type TestKey } from '../lib/auth/issuer.ts';

let key: TestKey;
let served: Awaited<ReturnType<typeof serveKeys>>;
let handler: Authorizer;
let apiKey: string;
let token: string;
/** What the functions write to standard output: their log. */
const log = vi.spyOn(process.stdout, 'write').mockReturnValue(true);

beforeAll(async () => {
  key = await newKey();
  served = await serveKeys([key.publicJwk]);
  const signing = await newSigningKey();
  // The handler is a composition root: it reads the environment when it is loaded, as in Lambda.
  vi.stubEnv('PUBLIC_URL', resource);
  vi.stubEnv(
    'ISSUERS',
    JSON.stringify([{ issuer: goodClaims.iss, audience: resource, jwksUri: served.jwksUri }]),
  );
  vi.stubEnv('API_KEY_JWKS', JSON.stringify({ keys: [signing.publicKey] }));
  vi.stubEnv('API_KEY_ISSUER', 'tenantry-keys');
  vi.stubEnv(
    'TOOLS_BY_SCOPES',
    JSON.stringify({ 'inventory:read': ['get_item'], 'inventory:read inventory:write': ['adjust_stock'] }),
  );
  ({ handler } = await import('../../functions/authorizer/handler.ts'));
  token = await sign(key, { exp: Date.now() / 1000 + 600 });
  apiKey = await mintApiKey(signing.privateKey, {
    tenant: 'globex',
    keyId: 'key-1',
    scopes: ['inventory:read', 'inventory:write'],
    expires: new Date(Date.now() + 600_000),
    issuer: 'tenantry-keys',
    audience: resource,
  });
});
afterAll(async () => {
  vi.unstubAllEnvs();
  log.mockRestore();
  await served.close();
});

function event(
  headers: Record<string, string | string[]>,
  changed: object = {},
): APIGatewayRequestAuthorizerEvent {
  const multiValueHeaders = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, [value].flat()]),
  );
  return {
    type: 'REQUEST',
    methodArn: 'arn:aws:execute-api:eu-central-1:123456789012:abcdef/prod/POST/mcp',
    path: '/mcp',
    httpMethod: 'POST',
    headers: Object.fromEntries(
      Object.entries(multiValueHeaders).map(([name, values]) => [name, values.at(-1)!]),
    ),
    multiValueHeaders,
    queryStringParameters: null,
    multiValueQueryStringParameters: null,
    ...changed,
  } as unknown as APIGatewayRequestAuthorizerEvent;
}

describe('allowed', () => {
  const policy = (Effect: string) => ({
    Version: '2012-10-17',
    Statement: [
      {
        Action: 'execute-api:Invoke',
        Effect,
        Resource: 'arn:aws:execute-api:eu-central-1:123456789012:abcdef/prod/*',
      },
    ],
  });

  it('a token: the context is flat strings', async () => {
    expect(await handler(event({ Authorization: `Bearer ${token}` }))).toEqual({
      principalId: 'alice',
      policyDocument: policy('Allow'),
      context: {
        tenant: 'acme',
        principal: 'alice',
        scopes: 'inventory:read',
        auth: `oidc:${goodClaims.iss}`,
      },
    });
  });

  it('an API key, whatever the case of header and scheme', async () => {
    const { context } = await handler(event({ authorization: `bearer ${apiKey}` }));
    expect(context).toEqual({
      tenant: 'globex',
      principal: 'key-1',
      scopes: 'inventory:read inventory:write',
      auth: 'key:key-1',
    });
  });

  it.each([
    ['a tool within its scopes', { 'Mcp-Method': 'tools/call', 'Mcp-Name': 'get_item' }],
    [
      'a tool that does not exist: the endpoint says so',
      { 'Mcp-Method': 'tools/call', 'Mcp-Name': 'nothing' },
    ],
    ['a name that every object has', { 'Mcp-Method': 'tools/call', 'Mcp-Name': 'constructor' }],
    ['another method', { 'Mcp-Method': 'prompts/get', 'Mcp-Name': 'adjust_stock' }],
    [
      'two names: the endpoint compares them with the body',
      { 'Mcp-Method': 'tools/call', 'Mcp-Name': ['get_item', 'adjust_stock'] },
    ],
    ['a tenant in a header, which nobody reads', { 'X-Tenant': 'globex', 'X-Amz-Tenant-Id': 'globex' }],
  ])('%s', async (_what, headers) => {
    const result = await handler(event({ ...headers, Authorization: `Bearer ${token}` }));
    expect(result).toMatchObject({ policyDocument: policy('Allow'), context: { tenant: 'acme' } });
  });

  it('not a tool beyond its scopes: the answer carries the challenge that asks for them', async () => {
    const headers = {
      Authorization: `Bearer ${token}`,
      'mcp-method': 'tools/call',
      'mcp-name': 'adjust_stock',
    };
    expect(await handler(event(headers))).toEqual({
      principalId: 'alice',
      policyDocument: policy('Deny'),
      context: {
        error: 'insufficient_scope',
        scope: 'inventory:read inventory:write',
        challenge:
          'Bearer error="insufficient_scope", scope="inventory:read inventory:write", ' +
          'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"',
      },
    });
  });
});

describe('unauthorized', () => {
  const refused: Record<string, () => [Record<string, string | string[]>, object?]> = {
    'without a header': () => [{}],
    'with an empty header': () => [{ Authorization: '' }],
    'with a scheme and nothing else': () => [{ Authorization: 'Bearer ' }],
    'with a token and no scheme': () => [{ Authorization: token }],
    'with another scheme': () => [{ Authorization: `Basic ${token}` }],
    'with two tokens in one header': () => [{ Authorization: `Bearer ${token}, Bearer ${apiKey}` }],
    'with two headers': () => [{ Authorization: [`Bearer ${token}`, `Bearer ${apiKey}`] }],
    'with two headers of different case': () => [
      { Authorization: `Bearer ${token}`, authorization: `Bearer ${apiKey}` },
    ],
    'with a token in the query': () => [{}, { queryStringParameters: { access_token: token, token } }],
    'with a token in a cookie': () => [{ Cookie: `access_token=${token}` }],
    'with a forged token': () => [{ Authorization: `Bearer ${token.slice(0, -10)}AAAAAAAAAA` }],
  };
  it.each(Object.entries(refused))('%s', async (_what, request) => {
    await expect(handler(event(...request()))).rejects.toThrow(/^Unauthorized$/);
  });

  it('the log says why a token is refused, without the token', async () => {
    log.mockClear();
    await expect(handler(event({ Authorization: `Bearer ${await sign(key, { exp: 1 })}` }))).rejects.toThrow(
      'Unauthorized',
    );
    expect(log).toHaveBeenCalledOnce();
    const line = String(log.mock.calls[0]![0]);
    expect(JSON.parse(line)).toMatchObject({
      outcome: 'unauthenticated',
      reason: 'Token refused: "exp" claim timestamp check failed',
    });
    expect(line).not.toContain('eyJ');
  });
});

it('an issuer that can’t be reached is a failure, not a 401 that sends the caller off to log in', async () => {
  vi.resetModules();
  vi.stubEnv(
    'ISSUERS',
    JSON.stringify([{ issuer: goodClaims.iss, audience: resource, jwksUri: 'http://127.0.0.1:1/jwks' }]),
  );
  const { handler: lonely } = await import('../../functions/authorizer/handler.ts');
  await expect(lonely(event({ Authorization: `Bearer ${token}` }))).rejects.toMatchObject({
    code: 'unavailable',
  });
  expect((await lonely(event({ Authorization: `Bearer ${apiKey}` }))).context).toMatchObject({
    tenant: 'globex',
  });
});
