import type { Strategy, TenantId } from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';
import { type CatalogHome, homeValues } from './tenants.ts';

export type MovePhase = 'moving' | 'switched' | 'reversed' | 'completed' | 'cancelled';
export type MoveWish = 'pause' | 'complete' | 'reverse' | 'cancel';

export interface Move {
  readonly operationId: string;
  readonly tenant: TenantId;
  readonly sourceHome: string;
  readonly targetHome: string;
  readonly phase: MovePhase;
  readonly wanted: MoveWish | undefined;
  /** Its execution has ended: another one goes on. */
  readonly pausedAt: Date | undefined;
  readonly resumedAt: Date | undefined;
  /** How often it went on: each time under a name of its own. */
  readonly resumptions: number;
  readonly windowSeconds: number;
  /** Since when the target is in use; its end is the window's. */
  readonly switchedAt: Date | undefined;
  readonly windowIsOver: boolean;
  /** When both homes were seen to hold the same after the switch. */
  readonly comparedAt: Date | undefined;
  /** Which rows differed when they were compared last, in words. */
  readonly differs: string | undefined;
  /** The operator completes it without the home that was left, which may be lost. */
  readonly withoutComparison: boolean;
}

/** Each execution of a move has a name of its own: the first the operation's. */
export const executionName = ({ operationId, resumptions }: Pick<Move, 'operationId' | 'resumptions'>) =>
  resumptions === 0 ? operationId : `${operationId}-${resumptions}`;

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

/** Moves of a tenant that were given up, while one of their homes is still there beside the one in use. */
export async function movesThatLeft(catalog: Catalog, tenant: TenantId): Promise<string[]> {
  const { rows } = await catalog.query<{ id: string }>(
    `select m.operation_id as id from catalog.moves m join catalog.operations o using (operation_id)
       join catalog.tenants t on t.tenant_id = m.tenant_id
      where m.tenant_id = $1 and o.state in ('failed', 'cancelled') and exists (
              select from catalog.homes h where h.home_id in (m.source_home, m.target_home) and h.home_id <> t.home_id)
      order by o.started_at`,
    [tenant],
  );
  return rows.map(({ id }) => id);
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
      pausedAt: row.paused_at ?? undefined,
      resumedAt: row.resumed_at ?? undefined,
      resumptions: row.resumptions,
      windowSeconds: row.window_seconds,
      switchedAt: row.switched_at ?? undefined,
      windowIsOver: row.over,
      comparedAt: row.compared_at ?? undefined,
      differs: row.differs ?? undefined,
      withoutComparison: row.without_comparison,
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

/** After the window, or when the operator wants it: unless a reversal was asked for until this moment. */
export async function completeMove(catalog: Catalog, operationId: string): Promise<void> {
  await catalog.query(
    `update catalog.moves set phase = 'completed' where operation_id = $1 and phase = 'switched' and wanted is distinct from 'reverse'`,
    [operationId],
  );
}

/** What the state machine shall do next. @returns false when the move is not in a phase in which that can be asked */
export async function wishMove(catalog: Catalog, operationId: string, wish: MoveWish): Promise<boolean> {
  if (wish === 'cancel') return wake(catalog, operationId, 'cancel');
  const { rowCount } = await (wish === 'pause'
    ? catalog.query(
        `update catalog.moves set wanted = case when paused_at is null then 'pause' end
          where operation_id = $1 and phase = 'moving' and (wanted is null or wanted = 'pause')`,
        [operationId],
      )
    : catalog.query(
        "update catalog.moves set wanted = $2, without_comparison = false where operation_id = $1 and phase = 'switched'",
        [operationId, wish],
      ));
  return rowCount === 1;
}

/**
 * Completes a move whose other home is lost: from here on nothing waits for that home, nor for those of the tenant's moves
 * that were given up, whose remains its next move removes. @returns false before the switch
 */
export async function completeUncompared(catalog: Catalog, operationId: string): Promise<boolean> {
  const { rowCount } = await catalog.query(
    `update catalog.moves m set without_comparison = true, wanted = case m.phase when 'switched' then 'complete' else m.wanted end
       from catalog.moves asked, catalog.operations o
      where asked.operation_id = $1 and asked.phase <> 'moving' and m.phase <> 'moving' and o.operation_id = m.operation_id
        and (m.operation_id = $1 or m.tenant_id = asked.tenant_id and o.state = 'failed')`,
    [operationId],
  );
  return rowCount !== 0;
}

/** A step has seen that it shall pause, and ends its execution. @returns false when the operator has thought better of it */
export async function pauseMove(catalog: Catalog, operationId: string): Promise<boolean> {
  const { rowCount } = await catalog.query(
    "update catalog.moves set wanted = null, paused_at = now() where operation_id = $1 and phase = 'moving' and wanted = 'pause'",
    [operationId],
  );
  return rowCount === 1;
}

/** Ends a pause, or the wish for one. @returns false when there is none */
export const resumeMove = (catalog: Catalog, operationId: string): Promise<boolean> =>
  wake(catalog, operationId, null);

async function wake(catalog: Catalog, operationId: string, wanted: 'cancel' | null): Promise<boolean> {
  const { rowCount } = await catalog.query(
    `update catalog.moves set wanted = $2, paused_at = null, resumptions = resumptions + (paused_at is not null)::integer,
            resumed_at = case when paused_at is null then resumed_at else now() end
      where operation_id = $1 and phase = 'moving' and ($2 = 'cancel' or wanted = 'pause' or paused_at is not null)`,
    [operationId, wanted],
  );
  return rowCount === 1;
}

export async function withdrawWish(catalog: Catalog, operationId: string): Promise<void> {
  await catalog.query('update catalog.moves set wanted = null where operation_id = $1', [operationId]);
}

/** What a comparison has found. `differs`: a wish to complete was uttered without knowing of it, and is over. */
export async function recordComparison(
  catalog: Catalog,
  operationId: string,
  differs: string | undefined,
): Promise<void> {
  await catalog.query(
    `update catalog.moves set differs = $2, compared_at = case when $2::text is null then now() end,
            wanted = case when $2::text is not null and wanted = 'complete' and not without_comparison then null else wanted end
      where operation_id = $1 and phase in ('moving', 'switched')`,
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

/** What the last moves that switched were like. */
export interface PastMoves {
  readonly pauseMs: number | null;
  /** Into tables of the same kind, from the start of the copy to the switch; null: none was large enough to tell. */
  readonly rowsPerSecond: number | null;
  /** Moves that tell of it. */
  readonly moves: number;
}

/** @param owning strategies whose homes have tables of their own */
export async function pastMoves(
  catalog: Catalog,
  to: Strategy,
  owning: readonly Strategy[],
): Promise<PastMoves> {
  const { rows } = await catalog.query(
    `with past as (
       select m.pause_ms, m.switched_at, o.input ->> 'strategy' as strategy, m.resumptions,
              (select sum(r.value::bigint) from jsonb_each_text(m.result -> 'rows') r) as rows,
              extract(epoch from m.switched_at - (select min(s.started_at) from catalog.operation_steps s
                                                   where s.operation_id = m.operation_id and s.step = 'copy')) as seconds
         from catalog.moves m join catalog.operations o using (operation_id)
        where m.pause_ms is not null order by m.switched_at desc limit 200
     ),
     large as (
       -- Of fewer rows the time is that of the steps, not of the rows.
       select rows / seconds as speed from past
        where (strategy = any ($2)) = ($1 = any ($2)) and rows >= 10000 and seconds > 0 and resumptions = 0 order by switched_at desc limit 10
     )
     select (select percentile_cont(0.5) within group (order by pause_ms) from (select pause_ms from past order by switched_at desc limit 10) p) as pause,
            (select percentile_cont(0.5) within group (order by speed) from large)::double precision as speed, (select count(*)::integer from large) as moves`,
    [to, [...owning]],
  );
  const { pause, speed, moves } = rows[0]!;
  return { pauseMs: pause, rowsPerSecond: speed, moves };
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
