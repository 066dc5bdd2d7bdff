import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { askPublicUrl, type CanaryKey, canaryKeys } from '../../../functions/lib/health/public-url.ts';
import { publishRun } from '../../../functions/lib/health/tell.ts';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { tenantSecretName } from '../../../functions/lib/isolation/credentials.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { canaryKeysSecret, runOnce, startWatchingUrl, told } from './support.ts';

let world: World;
let watch: Watch;
/** The world's own public URL. */
let send: typeof fetch;
let signing: Awaited<ReturnType<typeof startWatchingUrl>>['signing'];
beforeAll(async () => {
  world = await startWorld();
  ({ watch, send, signing } = await startWatchingUrl(world));
});
afterAll(() => world?.close());

const readKeys = async (): Promise<CanaryKey[]> =>
  canaryKeys.parse(JSON.parse((await world.secrets.find(canaryKeysSecret)) ?? '[]'));
const inCatalog = (text: string, values?: unknown[]) =>
  world.asProvisioner('catalog', (catalog) => catalog.query(text, values));
const sabotaged = async (change: Partial<Watch>) => {
  const run = await runOnce({ ...watch, ...change });
  return { state: run.state, text: told(run).join('\n') };
};
/** What a gateway in front of the real one would make of its answers. */
const behind = (wrap: (real: typeof fetch) => typeof fetch): Partial<Watch> => ({
  askPublicUrl: async () => askPublicUrl(watch.publicKeys.url, await readKeys(), wrap(send)),
});

describe('the canaries’ keys', () => {
  it('are one for each strategy in use, good for the probe and for nothing else', async () => {
    const keys = await readKeys();
    expect(keys.map(({ slug }) => slug)).toEqual(strategies.map((strategy) => `canary-${strategy}-a`));
    const { rows } = await inCatalog(
      "select distinct scopes, name from catalog.api_keys where revoked_at is null and expires_at > now() + interval '7 days'",
    );
    expect(rows).toEqual([{ scopes: ['tenancy:probe'], name: 'canary' }]);
  });

  it('stay as they are from run to run', async () => {
    const before = await readKeys();
    expect((await runOnce(watch)).state).toBe('ok');
    expect(await readKeys()).toEqual(before);
  });

  it.each([
    [
      'was revoked',
      ({ keyId }: CanaryKey) =>
        inCatalog('update catalog.api_keys set revoked_at = now() where key_id = $1', [keyId]),
    ],
    [
      'has left the catalog',
      ({ keyId }: CanaryKey) => inCatalog('delete from catalog.api_keys where key_id = $1', [keyId]),
    ],
    [
      'expires within the week',
      async (key: CanaryKey, all: CanaryKey[]) => {
        const soon = new Date(Date.now() + 6 * 86_400_000).toISOString();
        const changed = all.map((each) => (each === key ? { ...each, expiresAt: soon } : each));
        await world.secrets.write(canaryKeysSecret, JSON.stringify(changed));
      },
    ],
    [
      'was made for another address',
      (key: CanaryKey, all: CanaryKey[]) =>
        world.secrets.write(
          canaryKeysSecret,
          JSON.stringify(
            all.map((each) => (each === key ? { ...each, url: 'https://old.example.com/mcp' } : each)),
          ),
        ),
    ],
    ['was lost with its secret', () => world.secrets.write(canaryKeysSecret, 'not what it was')],
  ])('one that %s is made anew by the next run, which is green', async (_, wreck) => {
    const before = await readKeys();
    await wreck(before[0]!, before);
    const run = await runOnce(watch);
    expect(told(run)).toEqual([]);
    const after = await readKeys();
    expect(after.map(({ slug }) => slug).sort()).toEqual(before.map(({ slug }) => slug).sort());
    expect(after.map(({ keyId }) => keyId)).not.toContain(before[0]!.keyId);
  });

  it('that have expired leave the catalog', async () => {
    const [key] = await readKeys();
    await inCatalog(
      "insert into catalog.api_keys (key_id, tenant_id, name, scopes, expires_at) values (gen_random_uuid(), $1, 'canary', '{tenancy:probe}', now() - interval '1 day')",
      [key!.tenant],
    );
    await inCatalog('update catalog.api_keys set revoked_at = now() where key_id = $1', [key!.keyId]);
    await runOnce(watch);
    const { rows } = await inCatalog('select from catalog.api_keys where expires_at < now()');
    expect(rows).toEqual([]);
  });
});

describe('a run names what is wrong with the public URL', () => {
  it('it does not answer: degraded, since what keeps tenants apart is tried past it', async () => {
    const refuse = async () =>
      Promise.reject(new TypeError('fetch failed', { cause: new Error('connect ECONNREFUSED') }));
    const { state, text } = await sabotaged(behind(() => refuse));
    expect(state).toBe('degraded');
    for (const strategy of strategies)
      expect(text).toContain(
        `public_url: canary-${strategy}-a at ${watch.publicKeys.url} does not answer: connect ECONNREFUSED`,
      );
  });

  it('it lets anybody in: isolation in doubt', async () => {
    const open: typeof fetch = async () => Response.json({ jsonrpc: '2.0', id: 1, result: { tools: [] } });
    const { state, text } = await sabotaged(behind(() => open));
    expect(state).toBe('broken');
    expect(text).toContain(
      'public_tokens: http://127.0.0.1:8080/mcp lets a call without a token in, with status 200',
    );
  });

  it('its authorizer no longer looks at signatures: isolation in doubt', async () => {
    const keys = await readKeys();
    const believing =
      (real: typeof fetch): typeof fetch =>
      (address, init) => {
        const headers = new Headers(init?.headers);
        const claims = (token: string) => token.split('.').slice(0, 2).join('.');
        const sent = headers.get('authorization')?.replace('Bearer ', '');
        const genuine = keys.find(({ token }) => sent && claims(token) === claims(sent));
        if (genuine) headers.set('authorization', `Bearer ${genuine.token}`);
        return real(address, { ...init, headers });
      };
    const { state, text } = await sabotaged(behind(believing));
    expect([state, text]).toEqual([
      'broken',
      'public_tokens: http://127.0.0.1:8080/mcp lets a forged token in, with status 200',
    ]);
  });

  it('it takes a key for another tenant’s: isolation in doubt, of both strategies', async () => {
    const [first, second] = await readKeys();
    const swapped =
      (real: typeof fetch): typeof fetch =>
      (address, init) => {
        const headers = new Headers(init?.headers);
        if (headers.get('authorization') === `Bearer ${first!.token}`)
          headers.set('authorization', `Bearer ${second!.token}`);
        return real(address, { ...init, headers });
      };
    const { state, text } = await sabotaged(behind(swapped));
    expect(state).toBe('broken');
    expect(text).toContain(`${first!.slug} at ${watch.publicKeys.url} takes the key for another tenant’s`);
  });

  it('a 401 does not say where to log in', async () => {
    const headless =
      (real: typeof fetch): typeof fetch =>
      async (address, init) => {
        const answer = await real(address, init);
        return answer.status === 401 ? new Response('{}', { status: 401 }) : answer;
      };
    const { state, text } = await sabotaged(behind(headless));
    expect(state).toBe('degraded');
    expect(text).toContain('without the header by which a client finds the login');
  });

  it('one canary’s database is away: that strategy’s name, and no other', async () => {
    const { rows } = await inCatalog(
      "select tenant_id from catalog.tenants where slug = 'canary-database-a'",
    );
    const name = tenantSecretName(rows[0]!.tenant_id);
    const kept = await world.secrets.read(name, true);
    await world.secrets.write(name, JSON.stringify({ ...JSON.parse(kept), port: 1 }));
    // As an environment that has no connection yet.
    const { watch: fresh } = await startWatchingUrl(world, false, signing);
    const run = await runOnce(fresh).finally(() => world.secrets.write(name, kept));
    const found = run.report.findings.filter(({ check }) => check === 'public_url');
    expect(found.map(({ strategies, object }) => [strategies, object.split(' ')[0]])).toEqual([
      [['database'], 'canary-database-a'],
    ]);
    expect(told(await runOnce(watch))).toEqual([]);
  });

  it('the secret can’t be read out there: said, never passed over in silence', async () => {
    const { state, text } = await sabotaged({
      askPublicUrl: async () => askPublicUrl(watch.publicKeys.url, [], send),
    });
    expect(state).toBe('degraded');
    expect(text).toContain('was not called as canary-rls-a, canary-schema-a, canary-database-a: no key');
  });

  it('the function out there fails', async () => {
    const { state, text } = await sabotaged({
      askPublicUrl: () =>
        Promise.reject(new Error('The function endpoint-canary failed (Sandbox.Timedout).')),
    });
    expect([state, text]).toEqual([
      'degraded',
      `public_url: ${watch.publicKeys.url} could not be asked: The function endpoint-canary failed (Sandbox.Timedout).`,
    ]);
  });

  it('no finding holds a token', async () => {
    const run = await runOnce({
      ...watch,
      ...behind(() => async (_, init) => new Response(JSON.stringify(init?.headers), { status: 418 })),
    });
    const text = JSON.stringify(run.report);
    for (const { token } of await readKeys()) expect(text).not.toContain(token.split('.')[2]!);
  });

  it('metrics say in which runs it fails, and in which it does not', async () => {
    vi.stubEnv('POWERTOOLS_DEV', 'true');
    vi.stubEnv('POWERTOOLS_METRICS_DISABLED', 'false');
    const lines: string[] = [];
    const log = vi.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line));
    publishRun(await runOnce(watch));
    publishRun(await runOnce({ ...watch, ...behind(() => () => Promise.reject(new Error('away'))) }));
    log.mockRestore();
    vi.unstubAllEnvs();
    const figures = lines.map((line) => JSON.parse(line).PublicUrlFailures);
    expect(figures.filter((value) => value !== undefined)).toEqual([0, 1]);
  });
});
