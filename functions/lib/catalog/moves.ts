import type { Queryable } from '../database/types.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type CatalogHome, homeValues } from './tenants.ts';

/** The catalog as tenancy_provisioner sees it. Each function is one statement, safe to repeat. */
type Catalog = Pick<Queryable, 'query'>;

export type MovePhase = 'moving' | 'switched' | 'reversed' | 'completed' | 'cancelled';
export type MoveWish = 'complete' | 'reverse' | 'cancel';

export interface Move {
  readonly operationId: string;
  readonly tenant: TenantId;
  readonly sourceHome: string;
  readonly targetHome: string;
  readonly phase: MovePhase;
  readonly wanted: MoveWish | undefined;
  readonly windowSeconds: number;
  /** Since when the target is in use; its end is the window's. */
  readonly switchedAt: Date | undefined;
  readonly windowIsOver: boolean;
  /** When both homes were seen to hold the same after the switch. */
  readonly comparedAt: Date | undefined;
  /** Which rows differed when they were compared last after the switch, in words. */
  readonly differs: string | undefined;
}

export async function recordMove(
  catalog: Catalog,
  move: Pick<Move, 'operationId' | 'tenant' | 'sourceHome' | 'targetHome' | 'windowSeconds'>,
): Promise<void> {
  await catalog.query(
    `insert into catalog.moves (operation_id, tenant_id, source_home, target_home, window_seconds) values ($1, $2, $3, $4, $5)
     on conflict (operation_id) do nothing`,
    [move.operationId, move.tenant, move.sourceHome, move.targetHome, move.windowSeconds],
  );
}

export async function readMove(catalog: Catalog, operationId: string): Promise<Move | undefined> {
  const { rows } = await catalog.query(
    `select *, coalesce(switched_at + make_interval(secs => window_seconds) <= now(), false) as over from catalog.moves where operation_id = $1`,
    [operationId],
  );
  const row = rows[0];
  return (
    row && {
      operationId: row.operation_id,
      tenant: row.tenant_id,
      sourceHome: row.source_home,
      targetHome: row.target_home,
      phase: row.phase,
      wanted: row.wanted ?? undefined,
      windowSeconds: row.window_seconds,
      switchedAt: row.switched_at ?? undefined,
      windowIsOver: row.over,
      comparedAt: row.compared_at ?? undefined,
      differs: row.differs ?? undefined,
    }
  );
}

/** Compare and set: @returns false when the move was in another phase */
export async function setMovePhase(
  catalog: Catalog,
  operationId: string,
  from: readonly MovePhase[],
  to: MovePhase,
): Promise<boolean> {
  const { rowCount } = await catalog.query(
    'update catalog.moves set phase = $3 where operation_id = $1 and phase = any ($2)',
    [operationId, [...from], to],
  );
  return rowCount === 1;
}

/** What the state machine shall do next. @returns false when the move is not in a phase in which that can be asked */
export async function wishMove(catalog: Catalog, operationId: string, wish: MoveWish): Promise<boolean> {
  const from = wish === 'cancel' ? 'moving' : 'switched';
  const { rowCount } = await catalog.query(
    'update catalog.moves set wanted = $3 where operation_id = $1 and phase = $2',
    [operationId, from, wish],
  );
  return rowCount === 1;
}

export async function withdrawWish(catalog: Catalog, operationId: string): Promise<void> {
  await catalog.query('update catalog.moves set wanted = null where operation_id = $1', [operationId]);
}

/** What the comparison after the switch has found. `differs`: a wish to complete was uttered without knowing of it, and is over. */
export async function recordComparison(
  catalog: Catalog,
  operationId: string,
  differs: string | undefined,
): Promise<void> {
  await catalog.query(
    `update catalog.moves set differs = $2, compared_at = case when $2::text is null then now() end,
            wanted = case when $2::text is not null and wanted = 'complete' then null else wanted end
      where operation_id = $1 and phase = 'switched'`,
    [operationId, differs ?? null],
  );
}

/** The commit point: @returns false when the catalog has decided otherwise meanwhile, or the tenant is not active */
export async function switchHome(
  catalog: Catalog,
  { operationId, tenant }: Pick<Move, 'operationId' | 'tenant'>,
  phase: { readonly from: MovePhase; readonly to: MovePhase },
  home: { readonly from: string; readonly to: string; readonly epoch: number },
): Promise<boolean> {
  const { rows } = await catalog.query('select catalog.switch_home($1, $2, $3, $4, $5, $6, $7) as switched', [
    operationId,
    phase.from,
    phase.to,
    tenant,
    home.from,
    home.to,
    home.epoch,
  ]);
  return rows[0]!.switched;
}

export async function recordSwitch(
  catalog: Catalog,
  operationId: string,
  { pauseMs, rows }: { readonly pauseMs: number; readonly rows: Readonly<Record<string, number>> },
): Promise<void> {
  await catalog.query('update catalog.moves set pause_ms = $2, result = $3 where operation_id = $1', [
    operationId,
    pauseMs,
    JSON.stringify({ rows }),
  ]);
}

/** A home that the tenant may be moved to; one that is there stays as it is. */
export async function recordNextHome(catalog: Catalog, home: CatalogHome): Promise<void> {
  await catalog.query(
    `insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, epoch, state)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'provisioning') on conflict (home_id) do nothing`,
    homeValues(home),
  );
}

/** Takes out a home that no tenant lives in. */
export async function forgetLeftHome(catalog: Catalog, homeId: string): Promise<void> {
  await catalog.query(
    `delete from catalog.homes h where h.home_id = $1 and h.state in ('provisioning', 'moved')
        and not exists (select from catalog.tenants t where t.home_id = h.home_id)`,
    [homeId],
  );
}
