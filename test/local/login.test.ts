import { mkdtemp, rm } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as modern from '@modelcontextprotocol/client';
import type { OAuthClientProvider } from '@modelcontextprotocol/sdk/client/auth.js';
import * as legacy from '@modelcontextprotocol/sdk/client/index.js';
import * as legacyHttp from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newSigningKey } from '../../functions/lib/auth/api-key.ts';
import { functions } from '../../infra/functions.ts';
import { type Gateway, startGateway } from '../../infra/local/gateway/gateway.ts';
import { type Issuer, startIssuer } from '../../infra/local/issuer.ts';
import { LambdaHost } from '../../infra/local/lambda/host.ts';
import { stablePort } from '../../infra/local/ports.ts';
import { Browser } from './browser.ts';

const ids = { acme: '018f0000-0000-7000-8000-00000000000a', globex: '018f0000-0000-7000-8000-00000000000b' };
const tenants = Object.entries(ids).map(([slug, claim]) => ({ slug, claim }));
const redirectUrl = 'http://127.0.0.1:9/callback';

const scopes = ['inventory:read', 'inventory:write'];
const toolsByScopes = { 'inventory:read': ['who_reads'], [scopes.join(' ')]: ['who_writes'] };

let folder: string;
let publicUrl: string;
let issuer: Issuer;
let lambda: LambdaHost;
let gateway: Gateway;

const start = (port = 0) => startIssuer({ port, folder, resource: publicUrl, scopes, tenants });

/** Issuer, gateway and authorizer as `npm start` runs them; only the tools behind them are the test's. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tenantry-issuer-'));
  const port = await stablePort([]);
  publicUrl = `http://127.0.0.1:${port}/mcp`;
  issuer = await start();
  const trusted = { issuer: issuer.issuer, audience: publicUrl, jwksUri: issuer.jwksUri };
  const variables = {
    PUBLIC_URL: publicUrl,
    ISSUERS: JSON.stringify([trusted]),
    API_KEY_JWKS: JSON.stringify({ keys: [(await newSigningKey()).publicKey] }),
    API_KEY_ISSUER: 'keys',
    TOOLS_BY_SCOPES: JSON.stringify(toolsByScopes),
  };
  lambda = new LambdaHost({
    root: fileURLToPath(new URL('../..', import.meta.url)),
    functions: functions.map((row) =>
      row.name === 'mcp' ? { ...row, entry: 'test/local/functions/who-am-i.ts' } : row,
    ),
    variables: () => variables,
    log: () => {},
    onInitError: (_name, error) => {
      throw error;
    },
  });
  gateway = await startGateway({
    port,
    lambda,
    facts: { publicUrl, issuers: [issuer.issuer], scopes, allowedOrigins: [] },
  });
});
afterAll(async () => {
  await gateway.close();
  await lambda.close();
  await issuer.close();
  await rm(folder, { recursive: true, force: true });
});

interface Kept {
  client?: { client_id: string };
  tokens?: { access_token: string; refresh_token: string; scope: string };
  verifier?: string;
  url?: URL;
  discovery?: unknown;
}

/** What a real client keeps between its steps. */
function oauthClient() {
  const kept: Kept = {};
  const keep = (name: keyof Kept) => (value: unknown) => {
    Object.assign(kept, { [name]: value });
  };
  const provider = {
    redirectUrl,
    clientMetadata: {
      client_name: 'Login test',
      redirect_uris: [redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    },
    clientInformation: () => kept.client,
    saveClientInformation: keep('client'),
    tokens: () => kept.tokens,
    saveTokens: keep('tokens'),
    redirectToAuthorization: keep('url'),
    saveCodeVerifier: keep('verifier'),
    codeVerifier: () => kept.verifier!,
    saveDiscoveryState: keep('discovery'),
    discoveryState: () => kept.discovery,
  };
  return { kept, provider };
}

interface Connection {
  callTool(request: { name: string; arguments: object }): Promise<unknown>;
  close(): Promise<void>;
}

/** From a bare 401 to a connected client. */
async function connectModern(account: string, browser = new Browser()) {
  const { kept, provider } = oauthClient();
  const transport = () =>
    new modern.StreamableHTTPClientTransport(new URL(publicUrl), {
      authProvider: provider as unknown as modern.OAuthClientProvider,
    });
  const client = () =>
    new modern.Client({ name: 'login-test', version: '1.0.0' }, { versionNegotiation: { mode: 'auto' } });
  const first = transport();
  await expect(client().connect(first)).rejects.toBeInstanceOf(modern.UnauthorizedError);
  const callback = await browser.logIn(kept.url!, account, redirectUrl);
  await first.finishAuth(callback.searchParams);
  const connected = client();
  const second = transport();
  await connected.connect(second);
  return {
    kept,
    transport: second,
    client: connected as unknown as Connection,
    version: connected.getNegotiatedProtocolVersion(),
  };
}

async function connectLegacy(account: string) {
  const { kept, provider } = oauthClient();
  const transport = () =>
    new legacyHttp.StreamableHTTPClientTransport(new URL(publicUrl), {
      authProvider: provider as unknown as OAuthClientProvider,
    });
  const client = () => new legacy.Client({ name: 'login-test', version: '1.0.0' });
  const first = transport();
  await expect(client().connect(first as never)).rejects.toThrow('Unauthorized');
  const callback = await new Browser().logIn(kept.url!, account, redirectUrl);
  await first.finishAuth(callback.searchParams.get('code')!);
  const connected = client();
  await connected.connect(transport() as never);
  return { kept, client: connected as unknown as Connection };
}

describe('an official client, from a bare 401 through the login to a tool call', () => {
  it.each(['acme', 'globex'])('@modelcontextprotocol/client as %s', async (slug) => {
    const { client, kept, version } = await connectModern(`demo@${slug}.example`);
    expect(version).toBe('2026-07-28');
    expect(await client.callTool({ name: 'who_writes', arguments: {} })).toMatchObject({
      structuredContent: { tenant: ids[slug as keyof typeof ids], principal: `demo@${slug}.example` },
    });
    expect(decodeJwt(kept.tokens!.access_token)).toMatchObject({
      iss: issuer.issuer,
      aud: publicUrl,
      sub: `demo@${slug}.example`,
      tenant: ids[slug as keyof typeof ids],
      scope: 'inventory:read inventory:write',
    });
    await client.close();
  });

  it('@modelcontextprotocol/sdk as acme', async () => {
    const { client } = await connectLegacy('demo@acme.example');
    expect(await client.callTool({ name: 'who_reads', arguments: {} })).toMatchObject({
      structuredContent: { tenant: ids.acme, principal: 'demo@acme.example' },
    });
    await client.close();
  });

  it('for two tenants in one browser, without the first login leaking into the second', async () => {
    const browser = new Browser();
    for (const slug of ['acme', 'globex', 'acme'] as const) {
      const { client } = await connectModern(`demo@${slug}.example`, browser);
      expect(await client.callTool({ name: 'who_reads', arguments: {} })).toMatchObject({
        structuredContent: { tenant: ids[slug] },
      });
      await client.close();
    }
  });

  it('asks for a further scope when a tool needs it, and goes on with it', async () => {
    const browser = new Browser();
    const { client, kept, transport } = await connectModern('demo@acme.example', browser);
    const narrowed = await token({
      grant_type: 'refresh_token',
      refresh_token: kept.tokens!.refresh_token,
      client_id: kept.client!.client_id,
      scope: 'inventory:read',
    });
    const narrow = (await narrowed.json()) as NonNullable<Kept['tokens']>;
    expect(narrow.scope).toBe('inventory:read');
    kept.tokens = { ...kept.tokens, ...narrow, refresh_token: '' };
    expect(await client.callTool({ name: 'who_reads', arguments: {} })).not.toHaveProperty('isError', true);
    await expect(client.callTool({ name: 'who_writes', arguments: {} })).rejects.toBeInstanceOf(
      modern.UnauthorizedError,
    );
    expect(kept.url!.searchParams.get('scope')!.split(' ')).toEqual(expect.arrayContaining(scopes));
    const callback = await browser.logIn(kept.url!, 'demo@acme.example', redirectUrl);
    await transport.finishAuth(callback.searchParams);
    expect(await client.callTool({ name: 'who_writes', arguments: {} })).toMatchObject({
      structuredContent: { tenant: ids.acme },
    });
    await client.close();
  });

  it('survives a restart of the issuer: keys, registration and refresh token', async () => {
    const { client, kept } = await connectModern('demo@acme.example');
    const port = Number(new URL(issuer.issuer).port);
    await issuer.close();
    issuer = await start(port);
    expect(await client.callTool({ name: 'who_reads', arguments: {} })).toMatchObject({
      structuredContent: { tenant: ids.acme },
    });
    const refreshed = await token({
      grant_type: 'refresh_token',
      refresh_token: kept.tokens!.refresh_token,
      client_id: kept.client!.client_id,
    });
    expect(refreshed.status).toBe(200);
    expect(decodeJwt(((await refreshed.json()) as { access_token: string }).access_token)).toMatchObject({
      tenant: ids.acme,
    });
    await client.close();
  });
});

const token = (fields: Record<string, string>) =>
  fetch(`${issuer.issuer}/token`, { method: 'POST', body: new URLSearchParams(fields) });

async function register(metadata: object = {}): Promise<string> {
  const response = await fetch(`${issuer.issuer}/reg`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ redirect_uris: [redirectUrl], token_endpoint_auth_method: 'none', ...metadata }),
  });
  expect(response.status).toBe(201);
  return ((await response.json()) as { client_id: string }).client_id;
}

async function authorizationUrl(
  changed: Record<string, string | undefined> = {},
  metadata: object = {},
): Promise<URL> {
  const url = new URL(`${issuer.issuer}/auth`);
  const parameters = {
    client_id: await register(metadata),
    redirect_uri: redirectUrl,
    response_type: 'code',
    scope: 'inventory:read',
    resource: publicUrl,
    // RFC 7636, appendix B.
    code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
    code_challenge_method: 'S256',
    state: 'some-state',
    ...changed,
  };
  for (const [name, value] of Object.entries(parameters))
    if (value !== undefined) url.searchParams.set(name, value);
  return url;
}
const verifier = 'dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk';

describe('the issuer', () => {
  it('gives the scopes that were asked for and no others', async () => {
    const url = await authorizationUrl();
    const callback = await new Browser().logIn(url, 'demo@acme.example', redirectUrl);
    expect(callback.searchParams.get('state')).toBe('some-state');
    expect(callback.searchParams.get('iss')).toBe(issuer.issuer);
    const fields = {
      grant_type: 'authorization_code',
      code: callback.searchParams.get('code')!,
      redirect_uri: redirectUrl,
      client_id: url.searchParams.get('client_id')!,
    };
    expect((await token({ ...fields, code_verifier: 'x'.repeat(43) })).status).toBe(400);
    const again = await new Browser().logIn(url, 'demo@acme.example', redirectUrl);
    const response = await token({
      ...fields,
      code: again.searchParams.get('code')!,
      code_verifier: verifier,
    });
    expect(await response.json()).toMatchObject({ scope: 'inventory:read', token_type: 'Bearer' });
  });

  it.each([
    [
      'a login without PKCE',
      { code_challenge: undefined, code_challenge_method: undefined },
      'invalid_request',
    ],
    ['plain PKCE', { code_challenge_method: 'plain' }, 'invalid_request'],
    ['another resource', { resource: 'https://other.example.com/mcp' }, 'invalid_target'],
  ])('refuses %s', async (_what, changed, error) => {
    const callback = await new Browser().logIn(
      await authorizationUrl(changed),
      'demo@acme.example',
      redirectUrl,
    );
    expect(callback.searchParams.get('error')).toBe(error);
    expect(callback.searchParams.has('code')).toBe(false);
  });

  it('refuses a redirect that was not registered, and accounts that do not exist', async () => {
    const elsewhere = await new Browser().open(
      await authorizationUrl({ redirect_uri: 'http://evil.example/callback' }),
    );
    expect(elsewhere.status).toBe(400);
    await expect(
      new Browser().logIn(await authorizationUrl(), 'demo@umbrella.example', redirectUrl),
    ).rejects.toThrow(/answered 400/);
  });

  it('shows a client’s name as text', async () => {
    const page = await new Browser().open(
      await authorizationUrl({}, { client_name: '<script>alert(1)</script>' }),
    );
    const html = await page.text();
    expect(html).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
    expect(html).not.toContain('<script');
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
  });

  it('answers at its own name only', async () => {
    const status = await new Promise((resolve) => {
      const { port } = new URL(issuer.issuer);
      httpRequest(
        { host: '127.0.0.1', port, path: '/jwks', headers: { host: `rebound.example:${port}` } },
        (response) => {
          resolve(response.resume().statusCode);
        },
      ).end();
    });
    expect(status).toBe(421);
  });

  it('publishes no private key', async () => {
    const { keys } = (await (await fetch(issuer.jwksUri)).json()) as { keys: object[] };
    expect(keys.length).toBe(1);
    for (const key of keys) expect(Object.keys(key)).not.toContain('d');
  });
});
