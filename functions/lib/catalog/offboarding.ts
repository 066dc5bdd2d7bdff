import { type ControlConnection, inTransaction } from '../database/connect.ts';
import { RetryableError } from '../errors.ts';
import type { TenantId, TenantStatus } from '../tenant/tenant.ts';

interface Held {
  readonly status: TenantStatus;
  readonly isRemoving: boolean;
  readonly hasHome: boolean;
}

/**
 * What becomes of a tenant that leaves, as the catalog records it. Each function is one transaction that holds the tenant's
 * row: closing, resuming and the first removal can come at once, and each has to see what the one before it did.
 */
async function holdingTenant<T>(
  catalog: ControlConnection,
  tenant: TenantId,
  work: (held: Held) => Promise<T>,
  before?: () => Promise<void>,
): Promise<T> {
  return inTransaction(catalog, async () => {
    await before?.();
    const { rows } = await catalog.query(
      'select status, removal_begun_at, home_id from catalog.tenants where tenant_id = $1 for update',
      [tenant],
    );
    const { status, removal_begun_at, home_id } = rows[0]!;
    return work({ status, isRemoving: removal_begun_at !== null, hasHome: home_id !== null });
  });
}

const isRunning = async (catalog: ControlConnection, operationId: string): Promise<boolean> =>
  (
    await catalog.query("select from catalog.operations where operation_id = $1 and state = 'running'", [
      operationId,
    ])
  ).rowCount === 1;

/**
 * Closes the tenant, while its offboarding runs. @returns undefined when the operation has ended; `noGrace` when there is
 * nothing to undo: its removal has begun before, or it never opened
 */
export const closeTenant = (
  catalog: ControlConnection,
  tenant: TenantId,
  operationId: string,
): Promise<{ noGrace: boolean } | undefined> =>
  holdingTenant(catalog, tenant, async ({ status, isRemoving, hasHome }) => {
    if (!(await isRunning(catalog, operationId))) return undefined;
    if (status !== 'offboarded')
      await catalog.query(
        `with closed as (update catalog.tenants set status = 'offboarding', updated_at = now() where tenant_id = $1 returning home_id)
         update catalog.homes h set state = 'suspended' from closed where h.home_id = closed.home_id`,
        [tenant],
      );
    return { noGrace: isRemoving || !hasHome };
  });

/** From here on the offboarding can't be undone. @returns false when the operation has ended */
export const beginRemoval = (
  catalog: ControlConnection,
  tenant: TenantId,
  operationId: string,
): Promise<boolean> =>
  holdingTenant(catalog, tenant, async () => {
    if (!(await isRunning(catalog, operationId))) return false;
    await catalog.query(
      "update catalog.tenants set removal_begun_at = coalesce(removal_begun_at, now()) where tenant_id = $1 and status = 'offboarding'",
      [tenant],
    );
    return true;
  });

/**
 * Until when `resume` undoes an offboarding at least: its wait begins when the tenant is closed. `waitFactor`: what part of a
 * state machine's waits they last. @returns undefined when it does not wait: it has ended, or its removal has begun
 */
export async function graceEnd(
  catalog: ControlConnection,
  tenant: TenantId,
  waitFactor: number,
): Promise<Date | undefined> {
  const { rows } = await catalog.query(
    `select coalesce((select max(s.finished_at) from catalog.operation_steps s
                       where s.operation_id = o.operation_id and s.step = 'suspend' and s.outcome = 'done'), o.started_at)
            + make_interval(secs => (o.input ->> 'graceSeconds')::double precision * $2) as until
       from catalog.operations o join catalog.tenants t using (tenant_id)
      where o.tenant_id = $1 and o.kind = 'offboard' and o.state = 'running' and t.status = 'offboarding'
        and t.removal_begun_at is null and t.home_id is not null`,
    [tenant, waitFactor],
  );
  return rows[0]?.until;
}

export async function removalHasBegun(catalog: ControlConnection, tenant: TenantId): Promise<boolean> {
  const { rowCount } = await catalog.query(
    'select from catalog.tenants where tenant_id = $1 and removal_begun_at is not null',
    [tenant],
  );
  return rowCount === 1;
}

/**
 * Undoes a suspension, or an offboarding in its grace period, whose operation is cancelled with it.
 * @returns false when the tenant is not in a state that this undoes
 * @throws RetryableError `busy` while a step of the offboarding is at work: it would close the home after us
 */
export const reopenTenant = (catalog: ControlConnection, tenant: TenantId): Promise<boolean> => {
  const reopen = async ({ status, isRemoving, hasHome }: Held) => {
    if (!hasHome || isRemoving || !['active', 'suspended', 'offboarding'].includes(status)) return false;
    await catalog.query(
      `update catalog.operations set state = 'cancelled', reason = 'The tenant was resumed in its grace period.', finished_at = now()
        where tenant_id = $1 and kind = 'offboard' and state = 'running'`,
      [tenant],
    );
    await catalog.query(
      `with opened as (update catalog.tenants set status = 'active', updated_at = now() where tenant_id = $1 returning home_id)
       update catalog.homes h set state = 'open' from opened where h.home_id = opened.home_id`,
      [tenant],
    );
    return true;
  };
  return holdingTenant(catalog, tenant, reopen, () => awaitStep(catalog, tenant));
};

/** Takes turns with the steps of the offboarding that runs. */
async function awaitStep(catalog: ControlConnection, tenant: TenantId): Promise<void> {
  try {
    await catalog.query("set local lock_timeout = '10s'");
    await catalog.query(
      `select pg_advisory_xact_lock(hashtext('tenancy.operation'), hashtext(operation_id::text))
         from catalog.operations where tenant_id = $1 and kind = 'offboard' and state = 'running'`,
      [tenant],
    );
  } catch (cause) {
    if ((cause as { code?: string }).code !== '55P03') throw cause;
    throw new RetryableError('busy', 'A step of its offboarding is at work. Try again.', 5, { cause });
  }
}

/** The tombstone: of the tenant's homes, keys, pins and clusters nothing is left, and its row can't come back to life. */
export const buryTenant = (
  catalog: ControlConnection,
  tenant: TenantId,
  clusterIds: readonly string[],
): Promise<void> =>
  holdingTenant(catalog, tenant, async ({ status }) => {
    for (const table of ['api_keys', 'migration_pins'])
      await catalog.query(`delete from catalog.${table} where tenant_id = $1`, [tenant]);
    // Keys of rows in which two homes differed.
    await catalog.query('update catalog.moves set differs = null where tenant_id = $1', [tenant]);
    // What PostgreSQL said of a failure may quote a value.
    await catalog.query(
      `with own as (select operation_id from catalog.operations where tenant_id = $1),
            steps as (update catalog.operation_steps s set reason = $2 from own where s.operation_id = own.operation_id and s.reason is not null),
            homes as (select home_id from catalog.homes where tenant_id = $1
                      union select unnest(array[source_home, target_home]) from catalog.moves where tenant_id = $1),
            batches as (update catalog.move_batch_tenants set reason = $2 where tenant_id = $1 and reason is not null),
            targets as (update catalog.migration_targets t set reason = $2 from homes where t.target_id = homes.home_id and t.reason is not null)
       update catalog.operations set reason = $2 where tenant_id = $1 and reason is not null`,
      [tenant, 'Removed with the tenant, because it may have quoted a value of a row.'],
    );
    if (status !== 'offboarded')
      // Without its identity provider's ids: that organisation may come back, as another tenant. A canary's slug is for the one
      // that the watch makes in its place.
      await catalog.query(
        `update catalog.tenants set status = 'offboarded', offboarded_at = now(), updated_at = now(), home_id = null,
                issuer = null, external_id = null, slug = slug || case when slug like 'canary-%' then '-' || left(tenant_id::text, 8) else '' end
          where tenant_id = $1`,
        [tenant],
      );
    await catalog.query('delete from catalog.homes where tenant_id = $1', [tenant]);
    await catalog.query(
      `delete from catalog.clusters c where kind = 'dedicated' and cluster_id = any ($1)
          and not exists (select from catalog.homes h where h.cluster_id = c.cluster_id)`,
      [[...clusterIds]],
    );
  });
