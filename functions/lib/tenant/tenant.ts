import { z } from 'zod';

declare const brand: unique symbol;
/** A tenant's identity: a lower-case UUID that the product made. Never a slug, never a claim as received. */
export type TenantId = string & { readonly [brand]: 'TenantId' };

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const isTenantId = (value: unknown): value is TenantId => typeof value === 'string' && uuid.test(value);

export function tenantId(value: string): TenantId {
  if (!isTenantId(value)) throw new TypeError('A tenant id is a lower-case UUID.');
  return value;
}

export const strategies = ['rls', 'schema', 'database'] as const;
export type Strategy = (typeof strategies)[number];

/** A `database` tenant lives on its own instance, or (`shared-cluster`) in a database of its own beside others. */
export const placements = ['dedicated', 'shared-cluster'] as const;
export type Placement = (typeof placements)[number];

export const tiers = ['starter', 'pro', 'enterprise'] as const;
export type Tier = (typeof tiers)[number];

export type TenantStatus = 'provisioning' | 'active' | 'suspended' | 'offboarding' | 'offboarded' | 'failed';
export type HomeState = 'provisioning' | 'open' | 'read_only' | 'fenced' | 'suspended' | 'moved';

/** Words that would read as the product's own or as a URL's fixed part. */
const reserved = new Set([
  'admin',
  'api',
  'app',
  'auth',
  'catalog',
  'health',
  'internal',
  'mcp',
  'postgres',
  'public',
  'root',
  'shared',
  'support',
  'system',
  'tenancy',
  'tenant',
  'tenants',
  'well-known',
  'www',
]);

/** Of the watch's own tenants, which are no customer's: nobody else makes them. */
export const isCanarySlug = (slug: string): boolean => slug.startsWith('canary-');

/** The human handle: 3 to 40 characters, `a-z 0-9 -`, a letter first, no trailing or double hyphen. It never becomes an identifier. */
export const slug = z
  .string()
  .min(3, 'use at least 3 characters')
  .max(40, 'use at most 40 characters')
  .regex(/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/, 'use a-z, 0-9 and single hyphens, starting with a letter')
  .refine((value) => !reserved.has(value) && !isCanarySlug(value), 'this word is reserved');
