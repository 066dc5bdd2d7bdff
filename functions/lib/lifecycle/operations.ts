import { createHash, randomUUID } from 'node:crypto';
import { type ControlConnection, inTransaction } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { TenantId, TenantStatus } from '../tenant/tenant.ts';
import type { MigrateRequest } from './migrate.ts';
import type { MoveInput } from './move.ts';
import type { BatchRequest } from './move-batch.ts';
import type { OffboardInput } from './offboard.ts';
import type { ProvisionInput } from './provision.ts';
import type { ExportInput, ImportInput } from './transfer.ts';

/** What an operation of each kind is begun with: the catalog keeps it, and a step reads it there, never from its caller. */
interface Inputs {
  provision: ProvisionInput;
  offboard: OffboardInput;
  migrate: MigrateRequest;
  move: MoveInput;
  batch: BatchRequest;
  export: ExportInput;
  import: ImportInput;
}

export type OperationKind = keyof Inputs;

/** What is decided when an operation begins. */
interface Begun<Kind extends OperationKind> {
  readonly kind: Kind;
  /** None: it is about all of them. */
  readonly tenant: Kind extends 'migrate' | 'batch' ? undefined : TenantId;
  readonly input: Inputs[Kind];
}

export type Operation<Kind extends OperationKind = OperationKind> = Extract<
  { [K in OperationKind]: Begun<K> & Course }[OperationKind],
  { readonly kind: Kind }
>;

interface Course {
  readonly operationId: string;
  /** Cancelled: undone on purpose before it had done harm. */
  readonly state: 'running' | 'done' | 'failed' | 'cancelled';
  readonly failedStep: string | undefined;
  readonly reason: string | undefined;
  /** What it has done so far and what it found. */
  readonly result: Readonly<Record<string, unknown>>;
  readonly startedAt: Date;
}

/** Nobody works on an operation in which nothing has happened for so long: longer than any step may take. */
export const silentMinutes = 20;

export interface NewOperation<Kind extends OperationKind> extends Begun<Kind> {
  /** What the caller asked for: the same idempotency key may only come with the same request. */
  readonly request: object;
  readonly idempotencyKey?: string | undefined;
  /** It begins only while the tenant is one of these. */
  readonly whileTenantIs?: readonly TenantStatus[];
}

/**
 * Begins an operation, or answers the one that this idempotency key has begun before.
 * @throws TenantryError `idempotency_conflict`; `operation_running`: another one is changing this tenant; `wrong_status`: it is no longer what it has to be
 */
export async function beginOperation<Kind extends OperationKind>(
  catalog: ControlConnection,
  wanted: NewOperation<Kind>,
): Promise<Operation<Kind>> {
  const digest = requestDigest(wanted.kind, wanted.request);
  const id = randomUUID();
  const inserted = await catalog
    .query(
      // The share lock waits for whoever is just changing the tenant's status, and then looks again.
      `with tenant as (select from catalog.tenants where tenant_id = $3 and status = any ($7) for share)
       insert into catalog.operations (operation_id, kind, tenant_id, input, idempotency_key, request_digest)
       select $1, $2, $3, $4, $5, $6 where $7::text[] is null or exists (select from tenant)
       on conflict (idempotency_key) do nothing`,
      [
        id,
        wanted.kind,
        wanted.tenant ?? null,
        JSON.stringify(wanted.input),
        wanted.idempotencyKey ?? null,
        digest,
        wanted.whileTenantIs ?? null,
      ],
    )
    .catch((error: { constraint?: string }) => {
      if (error.constraint === 'operations_running')
        throw running('Another operation is changing this tenant', error);
      if (error.constraint === 'operations_batching')
        throw running('Another batch of moves is under way', error);
      if (error.constraint === 'operations_migrating' || error.constraint === 'operations_apart')
        throw running('A migration run is under way', error);
      throw error;
    });
  if (inserted.rowCount === 1) return operationOf(catalog, id, wanted.kind);
  const known =
    wanted.idempotencyKey &&
    (await operationOfKey(catalog, wanted.idempotencyKey, wanted.kind, wanted.request));
  if (known) return known;
  throw new TenantryError(
    'wrong_status',
    'The tenant has changed meanwhile and is not in a state for this any more. Look at it again.',
  );
}

/** Begins an operation together with what else the catalog records of it: whoever dies in between has begun nothing. */
export const beginRecorded = <Kind extends OperationKind>(
  catalog: ControlConnection,
  wanted: NewOperation<Kind>,
  record: (operation: Operation<Kind>) => Promise<void>,
): Promise<Operation<Kind>> =>
  inTransaction(catalog, async () => {
    const begun = await beginOperation(catalog, wanted);
    await record(begun);
    return begun;
  });

/** The operation that an idempotency key has begun. @throws TenantryError `idempotency_conflict` when it came with another request */
export async function operationOfKey<Kind extends OperationKind>(
  catalog: ControlConnection,
  key: string,
  kind: Kind,
  request: object,
): Promise<Operation<Kind> | undefined> {
  const { rows } = await catalog.query(
    'select operation_id, request_digest from catalog.operations where idempotency_key = $1',
    [key],
  );
  if (rows[0] === undefined) return undefined;
  if (rows[0].request_digest !== requestDigest(kind, request))
    throw new TenantryError(
      'idempotency_conflict',
      'This idempotency key was used for another request. Use a new key, or repeat the first request.',
    );
  return operationOf(catalog, rows[0].operation_id, kind);
}

const running = (what: string, cause: unknown) =>
  new TenantryError(
    'operation_running',
    `${what}. Wait until it has ended: \`npm run tenants -- operations\`.`,
    { cause },
  );

/** What an idempotency key is compared by. */
export function requestDigest(kind: OperationKind, request: object): string {
  const sorted = Object.entries(request)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([kind, sorted]))
    .digest('hex');
}

/** The only place where a row's input gets its type: what has begun the operation wrote what its kind has. @throws TenantryError `unknown_operation` */
export async function readOperation(catalog: ControlConnection, operationId: string): Promise<Operation> {
  const { rows } = await catalog.query('select * from catalog.operations where operation_id = $1', [
    operationId,
  ]);
  const row = rows[0];
  if (row === undefined) throw new TenantryError('unknown_operation', 'There is no such operation.');
  return {
    operationId: row.operation_id,
    kind: row.kind,
    tenant: row.tenant_id ?? undefined,
    state: row.state,
    input: row.input,
    failedStep: row.failed_step ?? undefined,
    reason: row.reason ?? undefined,
    result: row.result ?? {},
    startedAt: row.started_at,
  };
}

/** @throws TenantryError `unknown_operation` when there is no such operation of these kinds */
export async function operationOf<Kind extends OperationKind>(
  catalog: ControlConnection,
  operationId: string,
  ...kinds: readonly Kind[]
): Promise<Operation<Kind>> {
  const operation = await readOperation(catalog, operationId);
  if (!isOf(operation, kinds))
    throw new TenantryError('unknown_operation', 'There is no such operation of this kind.');
  return operation;
}

const isOf = <Kind extends OperationKind>(
  operation: Operation,
  kinds: readonly Kind[],
): operation is Operation<Kind> => (kinds as readonly OperationKind[]).includes(operation.kind);

/** Ends a running operation; one that has ended stays as it ended. */
export async function endOperation(
  catalog: ControlConnection,
  operationId: string,
  end:
    | { state: 'done' }
    | { state: 'failed'; step: string; reason: string }
    | { state: 'cancelled'; reason: string },
  /** What it came to: counts, never rows. */
  result?: object,
): Promise<void> {
  const step = end.state === 'failed' ? end.step : null;
  const reason = end.state === 'done' ? null : end.reason.slice(0, 2_000);
  await catalog.query(
    `update catalog.operations set state = $2, failed_step = $3, reason = $4, result = coalesce($5, result), finished_at = now()
      where operation_id = $1 and state = 'running'`,
    [operationId, end.state, step, reason, result === undefined ? null : JSON.stringify(result)],
  );
}

/** Adds to what the operation tells of itself; a name that is there gets the new value. */
export async function report(
  catalog: ControlConnection,
  operationId: string,
  found: Readonly<Record<string, unknown>>,
): Promise<void> {
  await catalog.query(
    "update catalog.operations set result = coalesce(result, '{}') || $2 where operation_id = $1",
    [operationId, JSON.stringify(found)],
  );
}
