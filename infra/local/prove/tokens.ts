import { generateKeyPairSync } from 'node:crypto';
import { decodeJwt, importJWK, type JWK, SignJWT, UnsecuredJWT } from 'jose';
import { apiKeyPrefix } from '../../../functions/lib/auth/api-key.ts';

/** A token that must not be accepted, and what is wrong with it. */
export interface BadToken {
  readonly name: string;
  readonly token: string;
}

/**
 * From a neighbour's valid API key: everything that makes it say the victim's name. Some are signed with the product's own
 * key, as if it had signed them for somewhere or some time else.
 */
export async function badTokens(
  valid: string,
  victim: { tenant: string; keyId: string },
  signing: { private: JWK; public: JWK },
): Promise<BadToken[]> {
  const jwt = valid.slice(apiKeyPrefix.length);
  const [header, , signature] = jwt.split('.') as [string, string, string];
  const genuine = decodeJwt(jwt);
  const claims = { ...genuine, tenant: victim.tenant, jti: victim.keyId };
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const ours = await importJWK(signing.private, 'ES256');
  const sign = (payload: object, more: object = {}) =>
    new SignJWT({ ...payload })
      .setProtectedHeader({ alg: 'ES256', kid: signing.private.kid!, ...more })
      .sign(ours);
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const strangersKey = stranger.publicKey.export({ format: 'jwk' });
  const byStranger = (more: object) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'ES256', ...more }).sign(stranger.privateKey);
  const hs256 = (key: string) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'HS256', kid: signing.public.kid! }).sign(Buffer.from(key));

  const jwts: Record<string, string> = {
    'alg none': new UnsecuredJWT(claims).encode(),
    'alg none in other letters': `${encode({ alg: 'nOnE' })}.${encode(claims)}.`,
    'HS256 with the public key': await hs256(JSON.stringify(signing.public)),
    'HS256 with an empty key of spaces': await hs256(' '.repeat(32)),
    "another tenant under the neighbour's signature": `${header}.${encode(claims)}.${signature}`,
    'no signature': `${header}.${encode(claims)}.`,
    'a signature of zeros': `${header}.${encode(claims)}.${Buffer.alloc(64).toString('base64url')}`,
    "a stranger's key under our key id": await byStranger({ kid: signing.public.kid }),
    "a stranger's key in the header": await byStranger({ jwk: strangersKey }),
    "a stranger's key at an address in the header": await byStranger({
      jku: 'http://127.0.0.1:9/jwks',
      kid: 'x',
    }),
    expired: await sign({ ...claims, exp: 1_000_000_000 }),
    'for another audience': await sign({ ...claims, aud: 'https://elsewhere.example/mcp' }),
    'without an audience': await sign(without(claims, 'aud')),
    'from another issuer': await sign({ ...claims, iss: 'https://issuer.example' }),
    'without an expiry': await sign(without(claims, 'exp')),
    'without a tenant': await sign(without(claims, 'tenant')),
    'two tenants': await sign({ ...claims, tenant: [genuine.tenant, victim.tenant] }),
    'a tenant that is an object': await sign({ ...claims, tenant: { toString: victim.tenant } }),
    "the victim's tenant under the neighbour's key id": await sign({ ...genuine, tenant: victim.tenant }),
    'a key id that nobody has': await sign({ ...claims, jti: '00000000-0000-4000-8000-000000000000' }),
    'an unknown critical extension': await sign(claims, { crit: ['x'], x: 1 }).catch(
      () => `${encode({ alg: 'ES256', crit: ['x'] })}.${encode(claims)}.x`,
    ),
  };
  const prefixed = Object.entries(jwts).map(([name, token]) => ({ name, token: apiKeyPrefix + token }));
  return [
    ...prefixed,
    { name: 'a valid key without its prefix', token: jwt },
    { name: 'no token at all', token: '' },
    { name: 'not a token', token: "' or '1'='1" },
    { name: "the victim's slug as the token", token: victim.tenant },
  ];
}

function without<T extends object>(claims: T, name: keyof T): Partial<T> {
  const { [name]: _, ...rest } = claims;
  return rest as Partial<T>;
}
