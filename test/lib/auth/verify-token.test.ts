import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { type CryptoKey, exportSPKI, importJWK } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mintApiKey, newSigningKey } from '../../../functions/lib/auth/api-key.ts';
import {
  createTokenVerifier,
  type TokenVerifier,
  type TrustedIssuer,
} from '../../../functions/lib/auth/verify-token.ts';
import { TenantryError } from '../../../functions/lib/errors.ts';
import {
  goodClaims,
  newKey,
  now,
  resource,
  seconds,
  serveKeys,
  sign,
  signText,
  type TestKey,
} from './issuer.ts';

const apiKeyIssuer = 'tenantry-keys';
const otherIssuer = 'https://other.example.com';

let key: TestKey;
let rsa: TestKey;
let otherKey: TestKey;
let signing: Awaited<ReturnType<typeof newSigningKey>>;
let served: Awaited<ReturnType<typeof serveKeys>>;
let otherServed: Awaited<ReturnType<typeof serveKeys>>;
let issuers: TrustedIssuer[];
let verify: TokenVerifier;

const verifier = (clock = () => now) =>
  createTokenVerifier({
    issuers,
    apiKeyJwks: { keys: [signing.publicKey] },
    apiKeyIssuer,
    audience: resource,
    clock,
  });

beforeAll(async () => {
  [key, rsa, otherKey, signing] = await Promise.all([newKey(), newKey('RS256'), newKey(), newSigningKey()]);
  served = await serveKeys([key.publicJwk, rsa.publicJwk]);
  otherServed = await serveKeys([otherKey.publicJwk]);
  issuers = [
    { issuer: goodClaims.iss, audience: resource, jwksUri: served.jwksUri },
    {
      issuer: otherIssuer,
      audience: resource,
      jwksUri: otherServed.jwksUri,
      tenantClaim: 'org_id',
      scopeClaim: 'roles',
    },
  ];
  verify = verifier();
});
afterAll(async () => {
  await served.close();
  await otherServed.close();
});

async function expectRefused(token: string, by = verify) {
  const error = await by(token).then(
    (principal) => expect.fail(`accepted as ${JSON.stringify(principal)}`),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(TenantryError);
  // One sentence for every reason: a refusal teaches a forger nothing.
  expect(error).toMatchObject({
    code: 'unauthenticated',
    message: 'The token was not accepted. Get a new one and try again.',
  });
}

describe('a token of a configured issuer', () => {
  it('names tenant, principal, scopes and where it came from', async () => {
    expect(
      await verify(await sign(key, { scope: 'inventory:write inventory:read inventory:write' })),
    ).toEqual({
      tenant: 'acme',
      principal: 'alice',
      scopes: 'inventory:read inventory:write',
      auth: 'oidc:https://login.example.com',
    });
  });

  it('may be signed with any public-key algorithm of the key set, and carry several audiences', async () => {
    expect(await verify(await sign(rsa, { aud: ['https://else.example.com', resource] }))).toMatchObject({
      tenant: 'acme',
    });
  });

  it('is read by the claims its issuer is configured with', async () => {
    const claims = {
      iss: otherIssuer,
      org_id: 'org_42',
      tenant: 'globex',
      roles: ['inventory:read', 'reader inventory:write'],
    };
    expect(await verify(await sign(otherKey, claims))).toEqual({
      tenant: 'org_42',
      principal: 'alice',
      scopes: 'inventory:read',
      auth: `oidc:${otherIssuer}`,
    });
  });

  it('without scopes is a caller without scopes', async () => {
    expect(await verify(await sign(key, { scope: undefined }))).toMatchObject({ scopes: '' });
  });

  it('is forgiven five seconds of clock drift and no more', async () => {
    expect(await verify(await sign(key, { exp: seconds - 4, nbf: seconds + 5 }))).toMatchObject({
      tenant: 'acme',
    });
    await expectRefused(await sign(key, { exp: seconds - 5 }));
    await expectRefused(await sign(key, { nbf: seconds + 6 }));
  });
});

describe('refused', () => {
  const claims: Record<string, object> = {
    'no issuer': { iss: undefined },
    'an unknown issuer': { iss: 'https://evil.example.com' },
    'an issuer that only looks the same': { iss: `${goodClaims.iss}/` },
    'two issuers': { iss: [goodClaims.iss] },
    'no audience': { aud: undefined },
    'another audience': { aud: 'https://other.example.com/mcp' },
    'no expiry': { exp: undefined },
    'an expired token': { exp: seconds - 60 },
    'an expiry that is no number': { exp: '9999999999' },
    'a token of the future': { nbf: seconds + 60 },
    'no subject': { sub: undefined },
    'no tenant': { tenant: undefined },
    'the tenant under a name that is not configured': { tenant: undefined, org_id: 'acme' },
    'two tenants': { tenant: ['acme', 'globex'] },
    'an array of one tenant': { tenant: ['acme'] },
    'a tenant that is no text': { tenant: { id: 'acme' } },
    'an empty tenant': { tenant: '' },
    'a blank tenant': { tenant: ' ' },
    'a padded tenant': { tenant: 'acme ' },
    'a tenant of 256 characters': { tenant: 'a'.repeat(256) },
    'a tenant with a NUL': { tenant: 'ac\0me' },
    'a tenant with a line break': { tenant: 'acme\nglobex' },
    'a tenant with a text direction mark': { tenant: 'acme\u202e' },
    'a tenant with an unpaired surrogate': { tenant: 'acme\ud800' },
    'scopes that are no text': { scope: { 'inventory:read': true } },
    'scopes that are partly text': { scope: ['inventory:read', 1] },
  };
  it.each(Object.entries(claims))('%s', async (_what, changed) => {
    await expectRefused(await sign(key, changed));
  });

  it('a tenant named twice in one payload', async () => {
    const payload = JSON.stringify(goodClaims);
    expect(await verify(await signText(key, payload))).toMatchObject({ tenant: 'acme' });
    await expectRefused(await signText(key, payload.replace('{', '{"tenant":"globex",')));
    await expectRefused(await signText(key, payload.replace('{', '{"\\u0074enant" : "globex",')));
  });

  it('alg none, with and without a signature', async () => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    for (const alg of ['none', 'None', 'NONE', '']) {
      const unsigned = `${part({ alg, kid: key.publicJwk.kid })}.${part(goodClaims)}`;
      await expectRefused(`${unsigned}.`);
      await expectRefused(`${unsigned}.c2ln`);
    }
  });

  it('HS256 with the public key as its secret, in every form a library might read one', async () => {
    const { publicJwk } = key;
    const spki = await exportSPKI((await importJWK(publicJwk, 'ES256')) as CryptoKey);
    for (const secret of [spki, spki.trim(), JSON.stringify(publicJwk), publicJwk.x!]) {
      const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
      const input = `${part({ alg: 'HS256', kid: publicJwk.kid })}.${part(goodClaims)}`;
      await expectRefused(`${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`);
    }
  });

  it('a key that the token brings along', async () => {
    const own = await newKey();
    await expectRefused(await sign(own, {}, { jwk: own.publicJwk, kid: undefined }));
    await expectRefused(await sign(own, {}, { jku: 'http://127.0.0.1:1/jwks', kid: own.publicJwk.kid }));
    await expectRefused(await sign(own, {}, { kid: key.publicJwk.kid }));
  });

  it('an extension that it demands, even one that the library knows', async () => {
    await expectRefused(await sign(key, {}, { crit: ['b64'], b64: true }));
    const [, payload, signature] = (await sign(key)).split('.');
    const header = Buffer.from(
      JSON.stringify({ alg: 'ES256', kid: key.publicJwk.kid, crit: ['x'], x: 1 }),
    ).toString('base64url');
    await expectRefused(`${header}.${payload}.${signature}`);
  });

  it('another trusted issuer’s signature under this issuer’s name', async () => {
    await expectRefused(await sign(otherKey));
    await expectRefused(await sign(key, { iss: otherIssuer, org_id: 'acme' }));
  });

  it('any change of one character', async () => {
    const token = await sign(key);
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.';
    // The last character of a signature holds two unused bits, so another character may mean the same bytes.
    const position = fc.nat(token.length - 2);
    await fc.assert(
      fc.asyncProperty(position, fc.constantFrom(...alphabet), async (at, character) => {
        if (token[at] === character) return;
        await expectRefused(token.slice(0, at) + character + token.slice(at + 1));
      }),
      { numRuns: 300 },
    );
  });

  it('anything that is no token', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 200 }), (text) => expectRefused(text)),
    );
    for (const text of ['', '.', '..', '....', 'tnt_', 'tnt_..', 'null', `a.${'b'.repeat(9000)}.c`])
      await expectRefused(text);
  });
});

describe('an issuer’s key set', () => {
  /** Has fetched none yet. */
  const withIssuer = (jwksUri: string) =>
    createTokenVerifier({
      issuers: [{ issuer: goodClaims.iss, audience: resource, jwksUri }],
      apiKeyJwks: { keys: [signing.publicKey] },
      apiKeyIssuer,
      audience: resource,
      clock: () => now,
    });

  it('is fetched once for many tokens, and strangers’ key ids do not make us fetch again', async () => {
    const own = await serveKeys([key.publicJwk]);
    const verifyOwn = withIssuer(own.jwksUri);
    const token = await sign(key);
    await Promise.all(Array.from({ length: 20 }, () => verifyOwn(token)));
    for (let i = 0; i < 20; i++)
      await expectRefused(await sign(otherKey, {}, { kid: `unknown-${i}` }), verifyOwn);
    expect(own.state.fetches).toBe(1);
    await own.close();
    expect(await verifyOwn(token)).toMatchObject({ tenant: 'acme' });
  });

  it('that can’t be had is the service’s fault, not the caller’s', async () => {
    const broken = await serveKeys([]);
    const token = await sign(key);
    broken.state.status = 500;
    await expect(withIssuer(broken.jwksUri)(token)).rejects.toMatchObject({
      code: 'unavailable',
      retryAfterSeconds: 5,
    });
    broken.state.status = 302;
    await expect(withIssuer(broken.jwksUri)(token)).rejects.toMatchObject({ code: 'unavailable' });
    await broken.close();
    await expect(withIssuer(broken.jwksUri)(token)).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('that fails is left alone for a moment, however many tokens ask for it', async () => {
    const own = await serveKeys([key.publicJwk]);
    const token = await sign(key);
    for (const status of [500, 200]) {
      own.state.status = status;
      // Answered well, but with what is no key set.
      if (status === 200) own.state.keys = 'none' as never;
      own.state.fetches = 0;
      const verifyOwn = withIssuer(own.jwksUri);
      for (let i = 0; i < 10; i++)
        await expect(verifyOwn(token)).rejects.toMatchObject({ code: 'unavailable' });
      expect(own.state.fetches).toBe(1);
    }
    own.state.keys = [key.publicJwk, { kty: 'oct', kid: 'x'.repeat(300_000) }];
    await expect(withIssuer(own.jwksUri)(token)).rejects.toMatchObject({ code: 'unavailable' });
    own.state.keys = [key.publicJwk];
    expect(await withIssuer(own.jwksUri)(token)).toMatchObject({ tenant: 'acme' });
    await own.close();
  });

  it('belongs to one configured issuer', () => {
    const twice = [...issuers, issuers[0]!];
    const options = { apiKeyJwks: { keys: [signing.publicKey] }, audience: resource };
    expect(() => createTokenVerifier({ ...options, issuers: twice, apiKeyIssuer })).toThrow(
      /configured once/,
    );
    expect(() => createTokenVerifier({ ...options, issuers, apiKeyIssuer: goodClaims.iss })).toThrow(
      /configured once/,
    );
  });
});

describe('an API key', () => {
  const claims = {
    tenant: '018f0000-0000-7000-8000-000000000001',
    keyId: 'key-1',
    scopes: ['inventory:write', 'inventory:read'],
    expires: new Date(now + 3_600_000),
    issuer: apiKeyIssuer,
    audience: resource,
  };
  const mint = (changed: object = {}) => mintApiKey(signing.privateKey, { ...claims, ...changed });

  it('names its tenant, its id and its scopes', async () => {
    const minted = await mint();
    expect(minted).toMatch(/^tnt_eyJ/);
    expect(await verify(minted)).toEqual({
      tenant: claims.tenant,
      principal: 'key-1',
      scopes: 'inventory:read inventory:write',
      auth: 'key:key-1',
    });
  });

  it('is refused when expired, of another deployment, or of another issuer', async () => {
    await expectRefused(await mint({ expires: new Date(now - 5000) }));
    await expectRefused(await mint({ audience: 'https://mcp.example.org/mcp' }));
    await expectRefused(await mint({ issuer: goodClaims.iss }));
  });

  it('is refused when somebody else’s key signed it', async () => {
    const stranger = await newSigningKey();
    await expectRefused(await mintApiKey(stranger.privateKey, claims));
    await expectRefused(await mintApiKey({ ...stranger.privateKey, kid: signing.privateKey.kid! }, claims));
  });

  it('needs its prefix, and the prefix makes no issuer’s token a key', async () => {
    await expectRefused((await mint()).slice('tnt_'.length));
    await expectRefused(`tnt_${await sign(key)}`);
    await expectRefused(`tnt_${await sign(key, { iss: apiKeyIssuer, jti: 'key-1' })}`);
  });

  it('cannot be minted without a tenant, an id or proper scopes', async () => {
    await expect(mint({ tenant: '' })).rejects.toThrow(TypeError);
    await expect(mint({ keyId: 'a\nb' })).rejects.toThrow(TypeError);
    await expect(mint({ scopes: [] })).rejects.toThrow(TypeError);
    await expect(mint({ scopes: ['inventory:read inventory:write'] })).rejects.toThrow(TypeError);
  });
});
