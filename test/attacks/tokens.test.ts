import { describe, expect, it } from 'vitest';
import { mintApiKey, newSigningKey } from '../../functions/lib/auth/api-key.ts';
import { createTokenVerifier } from '../../functions/lib/auth/verify-token.ts';
import { badTokens } from '../../infra/local/prove/tokens.ts';

/** What `npm run prove` sends to the endpoint of a running system, put before the verifier alone. */
const { privateKey, publicKey } = await newSigningKey();
const audience = 'http://127.0.0.1:8080/mcp';
const verify = createTokenVerifier({
  issuers: [],
  apiKeyJwks: { keys: [publicKey] },
  apiKeyIssuer: audience,
  audience,
});
const mint = (tenant: string, keyId: string) =>
  mintApiKey(privateKey, {
    tenant,
    keyId,
    scopes: ['inventory:read'],
    expires: new Date(Date.now() + 60_000),
    issuer: audience,
    audience,
  });
const [own, victim] = ['11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'];
const valid = await mint(own, '33333333-3333-4333-8333-333333333333');
const bad = await badTokens(
  valid,
  { tenant: victim, keyId: '44444444-4444-4444-8444-444444444444' },
  { private: privateKey, public: publicKey },
);

/** Truly signed by us, for what the catalog does not know: refused where the tenant is looked up. */
const forTheCatalog = ["the victim's tenant under the neighbour's key id", 'a key id that nobody has'];

it('accepts the key that the others are made from', async () => {
  expect(await verify(valid)).toMatchObject({ tenant: own });
});

describe('is refused:', () => {
  it.each(bad.filter(({ name }) => !forTheCatalog.includes(name)))('$name', async ({ token }) => {
    await expect(verify(token)).rejects.toMatchObject({ code: 'unauthenticated' });
  });
});

it('leaves to the catalog only what it alone can know', async () => {
  for (const { name, token } of bad.filter(({ name }) => forTheCatalog.includes(name)))
    expect(await verify(token), name).toMatchObject({ tenant: victim });
});
