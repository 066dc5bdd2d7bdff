import {
  CompactSign,
  calculateJwkThumbprint,
  compactVerify,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
  SignJWT,
} from 'jose';
import { identifier, normalizeScopes } from './claims.ts';

/** Tells an API key from an issuer's token, and lets secret scanners recognise a leaked one. */
export const apiKeyPrefix = 'tnt_';

export interface ApiKeyClaims {
  /** The tenant's id. */
  readonly tenant: string;
  /** The key's row in the catalog, by which it is listed and revoked. */
  readonly keyId: string;
  readonly scopes: readonly string[];
  readonly expires: Date;
  readonly issuer: string;
  /** The endpoint's public URL: a key of one deployment is nothing in another. */
  readonly audience: string;
}

/** Signs an API key. Whoever holds it is the tenant until it expires or is revoked: show it once, store it nowhere. */
export async function mintApiKey(privateKey: JWK, claims: ApiKeyClaims): Promise<string> {
  const scope = normalizeScopes([...claims.scopes]) || undefined;
  const dropped = scope?.split(' ').length !== new Set(claims.scopes).size;
  if (!identifier(claims.tenant) || !identifier(claims.keyId) || !scope || dropped) {
    throw new TypeError(
      'An API key needs a tenant, a key id and at least one scope, without spaces or control characters.',
    );
  }
  const kid = privateKey.kid ?? (await calculateJwkThumbprint(privateKey));
  const jwt = await new SignJWT({ tenant: claims.tenant, scope })
    .setProtectedHeader({ alg: 'ES256', kid })
    .setIssuer(claims.issuer)
    .setAudience(claims.audience)
    .setJti(claims.keyId)
    .setExpirationTime(claims.expires)
    .sign(await importJWK(privateKey, 'ES256'));
  return apiKeyPrefix + jwt;
}

/** A new pair for signing API keys: the private half belongs in Secrets Manager, the public one in API_KEY_JWKS. */
export async function newSigningKey(): Promise<{ privateKey: JWK; publicKey: JWK }> {
  const pair = await generateKeyPair('ES256', { extractable: true });
  const publicKey = await exportJWK(pair.publicKey);
  const named = { kid: await calculateJwkThumbprint(publicKey), alg: 'ES256', use: 'sig' };
  return {
    privateKey: { ...(await exportJWK(pair.privateKey)), ...named },
    publicKey: { ...publicKey, ...named },
  };
}

/** Whether keys that one half signs are accepted by whoever has the other. */
export async function isPair(privateKey: JWK, publicKey: JWK): Promise<boolean> {
  try {
    const signed = await new CompactSign(new Uint8Array(32))
      .setProtectedHeader({ alg: 'ES256' })
      .sign(await importJWK(privateKey, 'ES256'));
    await compactVerify(signed, await importJWK(publicKey, 'ES256'));
    return privateKey.kid === publicKey.kid;
  } catch {
    return false;
  }
}
