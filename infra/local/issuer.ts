import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose';
import Provider, { type Configuration, errors, interactionPolicy } from 'oidc-provider';
import { issuerStore, writePrivately } from './issuer-store.ts';
import { errorPage, loginPage } from './login-page.ts';

export interface IssuerOptions {
  /** 0: any free port. */
  port: number;
  /** Where keys, registered clients and logins are kept over a restart. */
  folder: string;
  /** The endpoint's public URL, the only resource that tokens are issued for. */
  resource: string;
  scopes: readonly string[];
  /** Who can log in: `demo@<slug>.example`, one per tenant. `claim` is what tokens carry as `tenant`. */
  tenants: readonly { slug: string; claim: string }[];
}

export interface Issuer {
  issuer: string;
  jwksUri: string;
  /** An access token for any tenant, good for an hour: what a login of one of its people would give. */
  mint(tenant: string, scopes: readonly string[]): Promise<string>;
  close(): Promise<void>;
}

const accountOf = (slug: string) => `demo@${slug}.example`;

/**
 * An OpenID Connect issuer for the local cloud, standing in for the identity provider of a real deployment: authorization
 * code with PKCE, resource indicators, dynamic client registration. Anybody at this machine may log in as any demo
 * tenant; it listens on 127.0.0.1 only.
 */
export async function startIssuer(options: IssuerOptions): Promise<Issuer> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(options.port, '127.0.0.1', resolve);
  });
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const issuer = `http://${host}`;
  const provider = new Provider(issuer, await configuration(options));
  provider.on('server_error', (_context, error) => console.error('issuer:', error));
  const serve = provider.callback();

  server.on('request', (request, response) => {
    // A page elsewhere may resolve its own name to 127.0.0.1 and then read what it likes, but it can't send our name.
    if (request.headers.host !== host) return void response.writeHead(421).end();
    if (request.url?.startsWith('/interaction/')) return void login(provider, options, request, response);
    if (request.url === '/reg' && answeredCors(request, response)) return;
    serve(request, response);
  });
  return {
    issuer,
    jwksUri: `${issuer}/jwks`,
    mint: (tenant, scopes) => mint(options, issuer, tenant, scopes),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function mint(
  { folder, resource, scopes: known }: IssuerOptions,
  issuer: string,
  tenant: string,
  scopes: readonly string[],
): Promise<string> {
  const { jwk } = await keys(join(folder, 'issuer-keys.json'));
  const wanted = scopes.length === 0 ? known : scopes.filter((scope) => known.includes(scope));
  return new SignJWT({ tenant, scope: wanted.join(' '), client_id: 'command-line' })
    .setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid: jwk.kid ?? (await calculateJwkThumbprint(jwk)) })
    .setIssuer(issuer)
    .setAudience(resource)
    .setSubject('operator')
    .setIssuedAt()
    .setExpirationTime('1h')
    .sign(await importJWK(jwk, 'RS256'));
}

async function configuration({ folder, resource, scopes, tenants }: IssuerOptions): Promise<Configuration> {
  const { jwk, cookieKey } = await keys(join(folder, 'issuer-keys.json'));
  const claimOf = new Map(tenants.map(({ slug, claim }) => [accountOf(slug), claim]));
  return {
    adapter: issuerStore(join(folder, 'issuer.json')),
    jwks: { keys: [jwk] },
    cookies: { keys: [cookieKey] },
    // Clients name the scopes they will want when they register, so the issuer must know them as its own.
    scopes: ['openid', 'offline_access', ...scopes],
    responseTypes: ['code'],
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post'],
    pkce: { required: () => true },
    // Most agents run beside the browser and come back to a loopback port, which for a native application may vary.
    clientDefaults: {
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      response_types: ['code'],
    },
    clientBasedCORS: (_context, origin, client) =>
      client.redirectUris?.some((uri) => new URL(uri).origin === origin) ?? false,
    findAccount: (_context, sub) =>
      claimOf.has(sub) ? { accountId: sub, claims: () => ({ sub }) } : undefined,
    extraTokenClaims: (_context, token) =>
      'accountId' in token ? { tenant: claimOf.get(token.accountId) } : undefined,
    issueRefreshToken: (_context, client) => client.grantTypeAllowed('refresh_token'),
    interactions: { policy: alwaysAsk(), url: (_context, interaction) => `/interaction/${interaction.uid}` },
    ttl: {
      AccessToken: 3600,
      AuthorizationCode: 60,
      Interaction: 3600,
      Session: 3600,
      Grant: 30 * 86_400,
      RefreshToken: 30 * 86_400,
      IdToken: 3600,
    },
    features: {
      devInteractions: { enabled: false },
      registration: { enabled: true },
      userinfo: { enabled: false },
      rpInitiatedLogout: { enabled: false },
      pushedAuthorizationRequests: { enabled: false },
      dPoP: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        useGrantedResource: () => true,
        getResourceServerInfo: (_context, indicator) => {
          if (indicator !== resource)
            throw new errors.InvalidTarget(`Tokens are issued for ${resource} only.`);
          return {
            audience: resource,
            scope: scopes.join(' '),
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'RS256' } },
          };
        },
      },
    },
    // What a client registers could otherwise make this machine call addresses of its choice.
    fetch: () => Promise.reject(new Error('The local issuer fetches nothing.')),
    renderError: (context, { error, error_description }) => {
      context.type = 'html';
      context.body = errorPage(error, error_description);
    },
  };
}

/** Without a remembered login: one browser connects agents of several tenants, and no page may get a token unseen. */
function alwaysAsk() {
  const { base, Check } = interactionPolicy;
  const policy = base();
  policy
    .get('login')!
    .checks.add(
      new Check('always_ask', 'a tenant must be chosen', (context) =>
        context.oidc.result?.login ? Check.NO_NEED_TO_PROMPT : Check.REQUEST_PROMPT,
      ),
    );
  return policy;
}

/** GET shows who can log in, POST is the choice: login and consent in one step. */
async function login(
  provider: Provider,
  options: IssuerOptions,
  request: IncomingMessage,
  response: ServerResponse,
) {
  try {
    // Bound to the browser by a cookie that other sites can't make it send.
    const { uid, params } = await provider.interactionDetails(request, response);
    const client = await provider.Client.find(String(params.client_id));
    const accounts = options.tenants.map(({ slug }) => ({ slug, account: accountOf(slug) }));
    if (request.method !== 'POST') {
      const { origin, protocol } = new URL(String(params.redirect_uri));
      const page = {
        uid,
        clientName: client?.clientName ?? 'An application',
        redirect: origin === 'null' ? protocol : origin,
        scopes: String(params.scope ?? ''),
        accounts,
      };
      response.writeHead(200, pageHeaders).end(loginPage(page));
      return;
    }
    const accountId = new URLSearchParams(await text(request)).get('account') ?? '';
    if (!accounts.some(({ account }) => account === accountId)) {
      response.writeHead(400, pageHeaders).end(errorPage('invalid_request', 'Choose one of the accounts.'));
      return;
    }
    const grant = new provider.Grant({ accountId, clientId: String(params.client_id) });
    grant.addOIDCScope(['openid', 'offline_access', ...options.scopes].join(' '));
    grant.addResourceScope(options.resource, options.scopes.join(' '));
    const consent = { grantId: await grant.save() };
    await provider.interactionFinished(request, response, { login: { accountId, remember: false }, consent });
  } catch (error) {
    response
      .writeHead(400, pageHeaders)
      .end(errorPage('invalid_request', error instanceof Error ? error.message : ''));
  }
}

const pageHeaders = {
  'content-type': 'text/html; charset=utf-8',
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
};

async function text(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request) {
    body += chunk;
    if (body.length > 10_000) throw new Error('The form is too large.');
  }
  return body;
}

/** Clients that run in a browser register across origins; a registration alone gives nothing. True: it was a preflight. */
function answeredCors(request: IncomingMessage, response: ServerResponse): boolean {
  response.setHeader('access-control-allow-origin', '*');
  response.setHeader('access-control-allow-headers', 'content-type');
  if (request.method !== 'OPTIONS') return false;
  response.writeHead(204).end();
  return true;
}

async function keys(file: string): Promise<{ jwk: JWK; cookieKey: string }> {
  if (!existsSync(file)) {
    const { privateKey } = await generateKeyPair('RS256', { extractable: true });
    const jwk = { ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig' };
    writePrivately(file, { jwk, cookieKey: randomBytes(32).toString('base64url') });
  }
  return JSON.parse(readFileSync(file, 'utf8'));
}
