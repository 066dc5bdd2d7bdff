import type { z } from 'zod';
import { TenantryError } from '../errors.ts';
import type { Admin } from './admin.ts';
import { createTenant, newTenant } from './create.ts';
import { createKey, listKeys, newKey, revokeKey } from './keys.ts';
import { listOperations, showOperation } from './operations.ts';
import { changeService, listTenants, showTenant } from './tenants.ts';
import { whyTenant } from './why.ts';

export interface AdminRequest {
  readonly params: readonly string[];
  readonly query: Readonly<Record<string, string | undefined>>;
  /** JSON as it was sent: not trusted yet. */
  readonly body: unknown;
  readonly idempotencyKey: string | undefined;
}

export interface AdminAnswer {
  readonly status: number;
  readonly body: object;
}

interface AdminRoute {
  readonly method: 'GET' | 'POST';
  /** `*` is a parameter. */
  readonly path: string;
  run(admin: Admin, request: AdminRequest): Promise<AdminAnswer>;
}

const ok = (body: object): AdminAnswer => ({ status: 200, body });
/** 201: it is there. 202: it is on its way. 500: it failed, and the operation says why. */
const statusOf = { done: 201, running: 202, failed: 500 } as const;

/** Everything the admin API answers. */
export const adminRoutes: readonly AdminRoute[] = [
  {
    method: 'POST',
    path: '/tenants',
    async run(admin, { body, idempotencyKey }) {
      const made = await createTenant(admin, parse(newTenant, body), idempotencyKey);
      const { state, reason } = made.operation;
      const error = state === 'failed' && { error: { code: 'operation_failed', message: reason } };
      return { status: statusOf[state], body: { ...error, ...made } };
    },
  },
  {
    method: 'GET',
    path: '/tenants',
    run: async (admin, { query }) => ok(await listTenants(admin, query.after)),
  },
  {
    method: 'GET',
    path: '/tenants/*',
    run: async (admin, { params: [slug] }) => ok(await showTenant(admin, slug!)),
  },
  {
    method: 'GET',
    path: '/tenants/*/why',
    run: async (admin, { params: [slug] }) => ok(await whyTenant(admin, slug!)),
  },
  ...(['suspend', 'resume'] as const).map(
    (verb): AdminRoute => ({
      method: 'POST',
      path: `/tenants/*/${verb}`,
      async run(admin, { params: [slug] }) {
        const changed = await changeService(admin, slug!, verb);
        return { status: changed.result === 'done' ? 200 : 202, body: changed };
      },
    }),
  ),
  {
    method: 'POST',
    path: '/tenants/*/keys',
    run: async (admin, { params: [slug], body, idempotencyKey }) => ({
      status: 201,
      body: await createKey(admin, slug!, parse(newKey, body), idempotencyKey),
    }),
  },
  {
    method: 'GET',
    path: '/tenants/*/keys',
    run: async (admin, { params: [slug] }) => ok(await listKeys(admin, slug!)),
  },
  {
    method: 'POST',
    path: '/tenants/*/keys/*/revoke',
    run: async (admin, { params: [slug, key] }) => ok(await revokeKey(admin, slug!, key!)),
  },
  { method: 'GET', path: '/operations', run: async (admin) => ok(await listOperations(admin)) },
  {
    method: 'GET',
    path: '/operations/*',
    async run(admin, { params: [id] }) {
      if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id!))
        throw new TenantryError('unknown_operation', 'There is no such operation.');
      return ok(await showOperation(admin, id!));
    },
  },
];

/** @throws TenantryError `invalid_request` that names every fault */
function parse<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const faults = result.error.issues.map(({ path, message }) => `${path.join('.') || 'body'}: ${message}`);
  throw new TenantryError('invalid_request', `The request can't be used: ${faults.join('; ')}.`);
}
