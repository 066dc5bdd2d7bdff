import type { z } from 'zod';
import { TenantryError } from '../errors.ts';
import type { Admin } from './admin.ts';
import { createTenant, newTenant } from './create.ts';
import { showHealth, showTenantHealth } from './health.ts';
import { createKey, listKeys, newKey, revokeKey } from './keys.ts';
import {
  haltMigration,
  newPin,
  newRun,
  pin,
  resumeMigration,
  runMigration,
  showMigration,
  unpin,
} from './migrations.ts';
import {
  askMove,
  completeWithoutComparison,
  completing,
  goOnMoving,
  moveTenant,
  moving,
  planTenantMove,
  showMove,
} from './move.ts';
import { batching, moveBatch, planBatch, showBatch, stopBatch } from './move-batch.ts';
import { offboarding, offboardTenant } from './offboard.ts';
import { listOperations, showOperation } from './operations.ts';
import { changeService, listTenants, showTenant } from './tenants.ts';
import { exporting, exportTenant, importing, importTenant } from './transfer.ts';

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
/** 201: it is there. 202: it is on its way. 500: it failed, and the operation says why. 409: it was undone meanwhile. */
const statusOf = { done: 201, running: 202, failed: 500, cancelled: 409 } as const;

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
    run: async (admin, { query }) => ok(await listTenants(admin, query.after, query.canaries === 'true')),
  },
  {
    method: 'GET',
    path: '/tenants/*',
    run: async (admin, { params: [slug] }) => ok(await showTenant(admin, slug!)),
  },
  {
    method: 'GET',
    path: '/tenants/*/why',
    async run(admin, { params: [slug] }) {
      // As drift's below: asked for when something is wrong.
      const { whyTenant } = await import('./why.ts');
      return ok(await whyTenant(admin, slug!));
    },
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
    path: '/tenants/*/offboard',
    async run(admin, { params: [slug], body, idempotencyKey }) {
      const left = await offboardTenant(admin, slug!, parse(offboarding, body), idempotencyKey);
      return { status: left.operation.state === 'running' ? 202 : 200, body: left };
    },
  },
  {
    method: 'POST',
    path: '/tenants/*/export',
    run: async (admin, { params: [slug], body, idempotencyKey }) => ({
      status: 202,
      body: await exportTenant(admin, slug!, parse(exporting, body), idempotencyKey),
    }),
  },
  {
    method: 'POST',
    path: '/tenants/*/import',
    run: async (admin, { params: [slug], body, idempotencyKey }) => ({
      status: 202,
      body: await importTenant(admin, slug!, parse(importing, body), idempotencyKey),
    }),
  },
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
  {
    method: 'POST',
    path: '/tenants/*/move',
    run: async (admin, { params: [slug], body, idempotencyKey }) => ({
      status: 202,
      body: await moveTenant(admin, slug!, parse(moving, body), idempotencyKey),
    }),
  },
  {
    method: 'POST',
    path: '/tenants/*/move/plan',
    run: async (admin, { params: [slug], body }) =>
      ok(await planTenantMove(admin, slug!, parse(moving, body))),
  },
  {
    method: 'GET',
    path: '/tenants/*/move',
    run: async (admin, { params: [slug] }) => ok(await showMove(admin, slug!)),
  },
  {
    method: 'POST',
    path: '/tenants/*/move/resume',
    run: async (admin, { params: [slug] }) => ({ status: 202, body: await goOnMoving(admin, slug!) }),
  },
  {
    method: 'POST',
    path: '/tenants/*/move/complete',
    run: async (admin, { params: [slug], body }) => ({
      status: 202,
      body: parse(completing, body ?? {}).withoutComparison
        ? await completeWithoutComparison(admin, slug!)
        : await askMove(admin, slug!, 'complete'),
    }),
  },
  ...(['pause', 'cancel', 'reverse'] as const).map(
    (wish): AdminRoute => ({
      method: 'POST',
      path: `/tenants/*/move/${wish}`,
      run: async (admin, { params: [slug] }) => ({ status: 202, body: await askMove(admin, slug!, wish) }),
    }),
  ),
  {
    method: 'POST',
    path: '/moves',
    run: async (admin, { body, idempotencyKey }) => ({
      status: 202,
      body: await moveBatch(admin, parse(batching, body), idempotencyKey),
    }),
  },
  {
    method: 'POST',
    path: '/moves/plan',
    run: async (admin, { body }) => ok(await planBatch(admin, parse(batching, body))),
  },
  { method: 'POST', path: '/moves/halt', run: async (admin) => ok(await stopBatch(admin)) },
  { method: 'GET', path: '/moves/latest', run: async (admin) => ok(await showBatch(admin)) },
  {
    method: 'GET',
    path: '/moves/*',
    run: async (admin, { params: [id] }) => ok(await showBatch(admin, operationId(id!))),
  },
  {
    method: 'POST',
    path: '/migrations',
    run: async (admin, { body, idempotencyKey }) => ({
      status: 202,
      body: await runMigration(admin, parse(newRun, body), idempotencyKey),
    }),
  },
  {
    method: 'POST',
    path: '/migrations/plan',
    run: async (admin, { body }) => {
      const request = parse(newRun, body);
      const { planMigration } = await import('./migration-plan.ts');
      return ok(await planMigration(admin, request));
    },
  },
  {
    method: 'POST',
    path: '/migrations/resume',
    run: async (admin, { idempotencyKey }) => ({
      status: 202,
      body: await resumeMigration(admin, idempotencyKey),
    }),
  },
  { method: 'POST', path: '/migrations/halt', run: async (admin) => ok(await haltMigration(admin)) },
  // GET looks; POST also tells the catalog of homes that are behind what it takes them for.
  ...(['GET', 'POST'] as const).map(
    (method): AdminRoute => ({
      method,
      path: '/migrations/drift',
      async run(admin, { query }) {
        // Seldom asked for: what is rare is not in the way of what is not.
        const { findDrift } = await import('./drift.ts');
        return ok(await findDrift(admin, query.tenant, query.after, method === 'POST'));
      },
    }),
  ),
  { method: 'GET', path: '/migrations/latest', run: async (admin) => ok(await showMigration(admin)) },
  {
    method: 'GET',
    path: '/migrations/*',
    run: async (admin, { params: [id] }) => ok(await showMigration(admin, operationId(id!))),
  },
  {
    method: 'POST',
    path: '/tenants/*/pin',
    run: async (admin, { params: [slug], body }) => ok(await pin(admin, slug!, parse(newPin, body))),
  },
  {
    method: 'POST',
    path: '/tenants/*/unpin',
    run: async (admin, { params: [slug] }) => ok(await unpin(admin, slug!)),
  },
  {
    method: 'GET',
    path: '/health',
    run: async (admin, { query: { tenant } }) =>
      ok(tenant === undefined ? await showHealth(admin) : await showTenantHealth(admin, tenant)),
  },
  { method: 'GET', path: '/operations', run: async (admin) => ok(await listOperations(admin)) },
  {
    method: 'GET',
    path: '/operations/*',
    run: async (admin, { params: [id] }) => ok(await showOperation(admin, operationId(id!))),
  },
  {
    method: 'POST',
    path: '/operations/*/cancel',
    run: async (admin, { params: [id] }) => {
      const { cancelOperation } = await import('./cancel.ts');
      return { status: 202, body: await cancelOperation(admin, operationId(id!)) };
    },
  },
];

/** @throws TenantryError `unknown_operation` */
function operationId(id: string): string {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) return id;
  throw new TenantryError('unknown_operation', 'There is no such operation.');
}

/** @throws TenantryError `invalid_request` that names every fault */
function parse<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const faults = result.error.issues.map(({ path, message }) => `${path.join('.') || 'body'}: ${message}`);
  throw new TenantryError('invalid_request', `The request can't be used: ${faults.join('; ')}.`);
}
