import { createHash, randomUUID } from 'node:crypto';
import { z } from 'zod';
import { mintApiKey } from '../auth/api-key.ts';
import { identifier } from '../auth/claims.ts';
import { recordApiKey, revokeApiKey } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { findTenant } from './tenants.ts';

export const newKey = z.strictObject({
  name: z
    .string()
    .max(100)
    .refine((name) => identifier(name) !== undefined, 'must be one line of text'),
  scopes: z
    .array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'must be an OAuth scope'))
    .min(1)
    .max(100),
  days: z.int().min(1).max(3_650),
});
export type NewKeyBody = z.output<typeof newKey>;

export interface KeyView {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly revokedAt: string | null;
}

const day = 86_400_000;

/**
 * A new API key, whose token is in this answer and nowhere else. With an idempotency key, a repetition answers a token
 * of the same key: a lost answer leaves no second key behind.
 * @throws TenantryError `unknown_tenant`, `wrong_status`, `invalid_request`; `idempotency_conflict`, also when that key was revoked or has expired
 */
export async function createKey(
  admin: Admin,
  slug: string,
  { name, scopes: asked, days }: NewKeyBody,
  idempotencyKey: string | undefined,
  now = Date.now(),
): Promise<KeyView & { token: string }> {
  const { settings, plane } = admin;
  const scopes = [...new Set(asked)].sort();
  const unknown = scopes.filter((scope) => !settings.scopes.includes(scope));
  if (unknown.length > 0)
    throw invalid(
      `No tool asks for ${unknown.join(', ')}. Scopes here: ${settings.scopes.join(', ') || 'none'}.`,
    );
  // Read anew: what a pair that was replaced in the meantime signs would be refused.
  const signing = JSON.parse(await plane.secrets.read(settings.signingKeySecret, true));
  return withCatalog(admin, async (catalog) => {
    const { tenant_id: tenant, status } = await findTenant(catalog, slug);
    if (status === 'offboarding' || status === 'offboarded')
      throw new TenantryError('wrong_status', `A tenant that is ${status} gets no keys.`);
    const keyId = idempotencyKey === undefined ? randomUUID() : idFrom(tenant, idempotencyKey);
    // A token says when it ends in whole seconds; created_at is the database's clock, so the term is kept beside it.
    const expires = new Date(Math.floor(now / 1_000) * 1_000 + days * day);
    await recordApiKey(catalog, { keyId, tenant, name, scopes, expires });
    const key = (await keysOf(catalog, tenant)).find(({ id }) => id === keyId)!;
    const termDays = Math.round((Date.parse(key.expiresAt) - Date.parse(key.createdAt)) / day);
    if (key.name !== name || key.scopes.join(' ') !== scopes.join(' ') || termDays !== days)
      throw new TenantryError(
        'idempotency_conflict',
        'This idempotency key was used for another request. Use a new key, or repeat the first request.',
      );
    // A token of it would be handed out as a new one, and refused at its first call.
    if (key.revokedAt !== null || Date.parse(key.expiresAt) <= now)
      throw new TenantryError(
        'idempotency_conflict',
        `The API key that this idempotency key made ${key.revokedAt === null ? 'has expired' : 'was revoked'}. Use a new idempotency key for another one.`,
      );
    const claims = { tenant, keyId, scopes, expires: new Date(key.expiresAt) };
    const { apiKeyIssuer: issuer, publicUrl: audience } = settings;
    return { ...key, token: await mintApiKey(signing.private, { ...claims, issuer, audience }) };
  });
}

/** @throws TenantryError `unknown_tenant` */
export const listKeys = (admin: Admin, slug: string): Promise<{ keys: KeyView[] }> =>
  withCatalog(admin, async (catalog) => ({
    keys: await keysOf(catalog, (await findTenant(catalog, slug)).tenant_id),
  }));

/** Refused everywhere within 30 s. Revoking it again changes nothing. @throws TenantryError `unknown_tenant`, `unknown_key` */
export const revokeKey = (admin: Admin, slug: string, keyId: string): Promise<KeyView> =>
  withCatalog(admin, async (catalog) => {
    const { tenant_id: tenant } = await findTenant(catalog, slug);
    const key = async () => (await keysOf(catalog, tenant)).find(({ id }) => id === keyId);
    if ((await key()) === undefined)
      throw new TenantryError(
        'unknown_key',
        `The tenant has no such key. \`npm run tenants -- keys list ${slug}\` shows its keys.`,
      );
    await revokeApiKey(catalog, keyId);
    return (await key())!;
  });

async function keysOf(catalog: ControlConnection, tenant: TenantId): Promise<KeyView[]> {
  const { rows } = await catalog.query(
    'select * from catalog.api_keys where tenant_id = $1 order by created_at, key_id',
    [tenant],
  );
  return rows.map((row) => ({
    id: row.key_id,
    name: row.name,
    scopes: row.scopes,
    createdAt: row.created_at.toISOString(),
    expiresAt: row.expires_at.toISOString(),
    revokedAt: row.revoked_at?.toISOString() ?? null,
  }));
}

/** The same key id for the same idempotency key: a UUID of version 8. */
function idFrom(tenant: TenantId, idempotencyKey: string): string {
  const hex = createHash('sha256')
    .update(JSON.stringify(['api-key', tenant, idempotencyKey]))
    .digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

const invalid = (message: string) => new TenantryError('invalid_request', message);
