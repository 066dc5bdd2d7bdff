import { beforeEach, expect, it } from 'vitest';
import { mintApiKey } from '../../../functions/lib/auth/api-key.ts';
import { createTokenVerifier } from '../../../functions/lib/auth/verify-token.ts';
import type { Secrets } from '../../../functions/lib/aws/secrets.ts';
import { ensureKeys, trustedKeys } from '../../../functions/lib/lifecycle/keys.ts';

const names = { contextKeySecret: 'context', signingKeySecret: 'signing' };
const address = 'https://mcp.example.com/mcp';

let stored: Map<string, string>;
let secrets: Secrets;
beforeEach(() => {
  stored = new Map();
  secrets = {
    find: async (name: string) => stored.get(name),
    write: async (name: string, value: string) => void stored.set(name, value),
  } as unknown as Secrets;
});

/** What a deployment with this setting leaves: an API key that is made afterwards, and what the authorizer trusts. */
async function deploy(generation?: number) {
  const { context, signing } = await ensureKeys(secrets, names, generation);
  const verify = createTokenVerifier({
    issuers: [],
    apiKeyJwks: { keys: trustedKeys(signing) as never },
    apiKeyIssuer: address,
    audience: address,
  });
  const token = await mintApiKey(signing.private, {
    tenant: 'acme',
    keyId: `key-${signing.public.kid}`,
    scopes: ['inventory:read'],
    expires: new Date(Date.now() + 60_000),
    issuer: address,
    audience: address,
  });
  const accepts = (token: string) =>
    verify(token).then(
      () => true,
      () => false,
    );
  return { context, token, accepts, trusted: trustedKeys(signing) };
}

it('makes both keys once, and keeps them for as long as nobody says otherwise', async () => {
  const first = await deploy();
  const written = [...stored];
  const second = await deploy(1);
  expect([...stored]).toEqual(written);
  expect(second.context).toBe(first.context);
  expect(await second.accepts(first.token)).toBe(true);
});

it('raised by one, makes a new pair and trusts the one before; raised again, that one no longer', async () => {
  const first = await deploy();
  const second = await deploy(2);
  expect([await second.accepts(first.token), await second.accepts(second.token)]).toEqual([true, true]);
  const third = await deploy(3);
  expect([await third.accepts(first.token), await third.accepts(second.token)]).toEqual([false, true]);
  expect(third.context).toBe(first.context);
});

it('raised by two, trusts nothing that was signed before', async () => {
  const stolen = await deploy();
  const next = await deploy(3);
  expect([await next.accepts(stolen.token), await next.accepts(next.token)]).toEqual([false, true]);
});

it('changes nothing when a deployment runs again or falls back to a lower number', async () => {
  const first = await deploy();
  const second = await deploy(2);
  for (const generation of [2, 1]) {
    const again = await deploy(generation);
    expect([await again.accepts(first.token), await again.accepts(second.token)]).toEqual([true, true]);
  }
});

it('takes a pair without a number, as the first deployments wrote it, for the first', async () => {
  await deploy();
  const { generation, ...pair } = JSON.parse(stored.get('signing')!);
  expect(generation).toBe(1);
  stored.set('signing', JSON.stringify(pair));
  const before = stored.get('signing');
  const first = await deploy(1);
  expect(stored.get('signing')).toBe(before);
  expect(await (await deploy(2)).accepts(first.token)).toBe(true);
});

it('gives the authorizer public halves alone', async () => {
  await deploy();
  const { trusted } = await deploy(2);
  expect(trusted).toHaveLength(2);
  for (const key of trusted) expect(key).not.toHaveProperty('d');
});
