import { randomUUID } from 'node:crypto';
import { probeScope } from '../auth/principal.ts';
import type { Route } from '../catalog/route.ts';
import { recordApiKey } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { type CanaryKey, canaryKeys } from './public-url.ts';
import type { Watch } from './watch.ts';

/** Of a new key, ms. */
const life = 14 * 86_400_000;
/** One that has less than this left, ms, is replaced: there is a week to mend what keeps it from being. */
const least = 7 * 86_400_000;
const name = 'canary';

/**
 * Keeps an API key for each of these canaries in the secret that the function outside the VPC reads: made anew before
 * it expires, and when it was revoked, when the endpoint has another address, or when the secret was lost.
 * @returns slugs of those that had one before this run
 */
export async function keepCanaryKeys(
  { publicKeys }: Pick<Watch, 'publicKeys'>,
  catalog: ControlConnection,
  canaries: readonly Route[],
  now: number,
): Promise<string[]> {
  const known = parse(await publicKeys.read());
  const { rows } = await catalog.query<{ id: string }>(
    'select key_id as id from catalog.api_keys where key_id = any ($1::uuid[]) and revoked_at is null',
    [known.map(({ keyId }) => keyId)],
  );
  const isGood = (key: CanaryKey) =>
    rows.some(({ id }) => id === key.keyId) &&
    key.url === publicKeys.url &&
    Date.parse(key.expiresAt) > now + least;
  const kept = canaries.flatMap(
    ({ tenant }) => known.find((key) => key.tenant === tenant && isGood(key)) ?? [],
  );
  const missing = canaries.filter(({ tenant }) => !kept.some((key) => key.tenant === tenant));
  if (missing.length === 0 && kept.length === known.length) return kept.map(({ slug }) => slug);
  const made = [];
  for (const canary of missing) made.push(await makeKey({ publicKeys }, catalog, canary, now));
  await publicKeys.write(JSON.stringify([...kept, ...made]));
  await catalog.query(
    'delete from catalog.api_keys where tenant_id = any ($1::uuid[]) and name = $2 and expires_at < now()',
    [canaries.map(({ tenant }) => tenant), name],
  );
  return kept.map(({ slug }) => slug);
}

async function makeKey(
  { publicKeys }: Pick<Watch, 'publicKeys'>,
  catalog: ControlConnection,
  { slug, strategy, tenant }: Route,
  now: number,
): Promise<CanaryKey> {
  const keyId = randomUUID();
  const scopes = [probeScope];
  // Tokens say in whole seconds when they end.
  const expires = new Date(Math.floor((now + life) / 1_000) * 1_000);
  await recordApiKey(catalog, { keyId, tenant, name, scopes, expires });
  const token = await publicKeys.mint({ tenant, keyId, scopes, expires });
  return { slug, strategy, tenant, keyId, url: publicKeys.url, expiresAt: expires.toISOString(), token };
}

/** What can't be read is made anew. */
function parse(text: string | undefined): readonly CanaryKey[] {
  try {
    return canaryKeys.parse(JSON.parse(text ?? '[]'));
  } catch {
    return [];
  }
}
