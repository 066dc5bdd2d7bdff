import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  decodeJwt,
  decodeProtectedHeader,
  errors,
  type JSONWebKeySet,
  type JWTPayload,
  type JWTVerifyGetKey,
  jwtVerify,
} from 'jose';
import { RetryableError, TenantryError } from '../errors.ts';
import { apiKeyPrefix } from './api-key.ts';
import { identifier, memberNames, normalizeScopes } from './claims.ts';
import { keyFetch } from './fetch-keys.ts';
import type { Principal } from './principal.ts';

/** One OpenID Connect issuer whose access tokens are accepted. */
export interface TrustedIssuer {
  /** Compared with `iss` character by character. */
  readonly issuer: string;
  /** What `aud` must contain: normally the endpoint's public URL. */
  readonly audience: string;
  readonly jwksUri: string;
  /** The claim that names the tenant: a tenant id, or the issuer's own organisation id. Default `tenant`. */
  readonly tenantClaim?: string | undefined;
  /** Default `scope`; Entra has `roles` or `scp`, Okta `scp`. */
  readonly scopeClaim?: string | undefined;
}

export interface TokenVerifierOptions {
  readonly issuers: readonly TrustedIssuer[];
  /** Public halves of the keys that sign API keys; two while one replaces the other. */
  readonly apiKeyJwks: JSONWebKeySet;
  readonly apiKeyIssuer: string;
  /** What an API key's `aud` must contain: the endpoint's public URL. */
  readonly audience: string;
  /** Unix time, ms. */
  readonly clock?: (() => number) | undefined;
}

/** @throws TenantryError `unauthenticated`; RetryableError `unavailable` when an issuer's keys can't be fetched */
export type TokenVerifier = (token: string) => Promise<Principal>;

/** Public-key signatures only: with a shared-secret algorithm a public key would be a secret that everybody has. */
const algorithms = [
  'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512', 'EdDSA', 'Ed25519',
]; // biome-ignore format: one family after the other

/** Seconds. Issuers and Lambda both follow NTP and differ by milliseconds; this forgives a drifting one, not an old token. */
const leeway = 5;
/** API Gateway's bound for all headers together is 10,240 bytes. */
const maxTokenLength = 8192;

interface Trust {
  readonly keys: JWTVerifyGetKey;
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: string[];
  readonly required: string[];
  principal(payload: JWTPayload): Principal | undefined;
}

/** Verifies access tokens of the configured issuers and the product's own API keys; holds each issuer's key set. */
export function createTokenVerifier(options: TokenVerifierOptions): TokenVerifier {
  const clock = options.clock ?? Date.now;
  const issuers = new Map(options.issuers.map((row) => [row.issuer, trustIssuer(row)]));
  if (issuers.size < options.issuers.length || issuers.has(options.apiKeyIssuer)) {
    throw new TenantryError(
      'invalid_settings',
      'Each issuer may be configured once, and none may be the API keys’ issuer.',
    );
  }
  const apiKeys = trustApiKeys(options);

  return async (token) => {
    if (token.length > maxTokenLength) throw refused('it is too long');
    const isApiKey = token.startsWith(apiKeyPrefix);
    const jwt = isApiKey ? token.slice(apiKeyPrefix.length) : token;
    // Unverified until `verify`: it only selects whose keys must have signed it.
    const issuer = readIssuer(jwt);
    const trust = isApiKey ? apiKeys : issuers.get(issuer);
    if (!trust) throw refused('its issuer is not trusted');
    const payload = await verify(jwt, trust, clock());
    const principal = trust.principal(payload);
    if (!principal) throw refused('its tenant, subject or scope claim is missing or malformed');
    return principal;
  };
}

function trustIssuer({ issuer, audience, jwksUri, tenantClaim, scopeClaim }: TrustedIssuer): Trust {
  return {
    // Keys live 10 minutes, so that a withdrawn one ends with them; a token with an unknown key id makes us fetch
    // again, at most every 30 s, so that strangers can't make us flood the issuer.
    keys: createRemoteJWKSet(new URL(jwksUri), {
      cacheMaxAge: 600_000,
      cooldownDuration: 30_000,
      timeoutDuration: 3000,
      [customFetch]: keyFetch(),
    }),
    issuer,
    audience,
    algorithms,
    required: ['exp', 'sub'],
    principal(payload) {
      const tenant = identifier(own(payload, tenantClaim ?? 'tenant'));
      const principal = identifier(payload.sub);
      const scopes = normalizeScopes(own(payload, scopeClaim ?? 'scope'));
      if (!tenant || !principal || scopes === undefined) return undefined;
      return { tenant, principal, scopes, auth: `oidc:${issuer}` };
    },
  };
}

function trustApiKeys({ apiKeyJwks, apiKeyIssuer, audience }: TokenVerifierOptions): Trust {
  return {
    keys: createLocalJWKSet(apiKeyJwks),
    issuer: apiKeyIssuer,
    audience,
    algorithms: ['ES256'],
    required: ['exp', 'jti'],
    // Whether the key was revoked is the catalog's to say: `catalog.resolve(tenant, key id)`.
    principal(payload) {
      const tenant = identifier(own(payload, 'tenant'));
      const keyId = identifier(payload.jti);
      const scopes = normalizeScopes(payload.scope);
      if (!tenant || !keyId || scopes === undefined) return undefined;
      return { tenant, principal: keyId, scopes, auth: `key:${keyId}` };
    },
  };
}

async function verify(jwt: string, trust: Trust, now: number): Promise<JWTPayload> {
  try {
    const { payload } = await jwtVerify(jwt, trust.keys, {
      issuer: trust.issuer,
      audience: trust.audience,
      algorithms: trust.algorithms,
      requiredClaims: trust.required,
      clockTolerance: leeway,
      currentDate: new Date(now),
    });
    return payload;
  } catch (cause) {
    if (faultOfToken.some((type) => cause instanceof type)) throw refused((cause as Error).message, cause);
    // The issuer can't be reached or its key set is broken: not the caller's fault, so not a 401.
    throw new RetryableError(
      'unavailable',
      'The token issuer’s keys can’t be read now; try again shortly.',
      5,
      { cause },
    );
  }
}

const faultOfToken = [
  errors.JWTInvalid,
  errors.JWTExpired,
  errors.JWTClaimValidationFailed,
  errors.JWSInvalid,
  errors.JWSSignatureVerificationFailed,
  errors.JOSEAlgNotAllowed,
  errors.JWKSNoMatchingKey,
  errors.JWKSMultipleMatchingKeys,
];

function readIssuer(jwt: string): string {
  let payload: JWTPayload;
  try {
    // No extension of JWS is understood here, so none may be demanded.
    if ('crit' in decodeProtectedHeader(jwt)) throw new Error('crit');
    payload = decodeJwt(jwt);
    const names = memberNames(Buffer.from(jwt.split('.')[1]!, 'base64url').toString('utf8'));
    if (new Set(names).size < names.length) throw new Error('repeated claim');
  } catch (cause) {
    throw refused('it is malformed', cause);
  }
  return typeof payload.iss === 'string' ? payload.iss : '';
}

const own = (payload: JWTPayload, claim: string): unknown =>
  Object.hasOwn(payload, claim) ? payload[claim] : undefined;

/** The reason is for the operator's log; a caller is only told that the token is no good. */
function refused(reason: string, cause?: unknown): TenantryError {
  return new TenantryError('unauthenticated', 'The token was not accepted. Get a new one and try again.', {
    cause: new Error(`Token refused: ${reason}`, { cause }),
  });
}
