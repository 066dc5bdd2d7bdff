import type { ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, identifier } from '../database/connect.ts';
import type { CopyConnection } from '../database/copy-between.ts';
import { TenantryError } from '../errors.ts';
import { type MasterKeys, signContext } from '../isolation/context.ts';
import type { HomeState } from '../tenant/tenant.ts';

/** A home that one attempt of one step has taken for itself. */
export interface Hold {
  readonly home: ReachableHome;
  readonly connection: ControlConnection;
  /** The attempt: what another one has taken over since, this one can't change any more. */
  readonly mover: string;
}

/** One of the two homes of a move, with its rows in reach. */
export interface Side extends Hold {
  readonly connection: CopyConnection;
  readonly keys: MasterKeys;
}

/** A step that was thought dead went on after another attempt had taken its place. */
export const superseded = () =>
  new TenantryError('operation_ended', 'Another attempt of this step has taken over, or the move has ended.');

/** Text forms must agree on both sides, whatever the server's or the role's defaults. */
const settings = `set local timezone = 'UTC'; set local datestyle = 'ISO, MDY'; set local intervalstyle = 'postgres';
  set local bytea_output = 'hex'; set local lc_monetary = 'C'; set local extra_float_digits = 1; set local xmloption = content; set local lock_timeout = '10s';
  set local row_security = on; set local standard_conforming_strings = on`;

type Isolation = 'read committed' | 'repeatable read';

/**
 * Rows of the home, as their owner, who in shared tables sees this tenant's alone. One snapshot, which changes nothing.
 * @param work gets what `first`, SQL that goes with BEGIN, has answered at its end
 */
export const reading = <T>(
  side: Side,
  work: (first: readonly unknown[]) => Promise<T>,
  first = '',
): Promise<T> => inTransaction(side, 'repeatable read', undefined, work, first);

/**
 * The same to write them, while the home is in one of these states and this attempt still holds it: its end, or the
 * next attempt, waits for this transaction.
 */
export const writing = <T>(
  side: Side,
  states: readonly HomeState[],
  work: () => Promise<T>,
  first = '',
): Promise<T> => inTransaction(side, 'read committed', states, work, first);

/** The same in one round trip, for what asks nothing: writers wait for it. */
export const writingAtOnce = (side: Side, states: readonly HomeState[], script: string): Promise<void> =>
  orRollBack(side, async () => {
    await side.connection.query(`${beginning(side, 'read committed', states)}; ${script}; commit`);
  });

/** For the rest of a transaction: the home's owner, with the context of a move. */
export function becomeOwner({ home, keys }: Pick<Side, 'home' | 'keys'>, mode: 'r' | 'w'): string {
  const { databaseId, tenant, epoch, schema } = home;
  const scope = { databaseId, tenant, epoch, mode, purpose: 'move', statementMs: 0 } as const;
  return `${settings}; set local role tenancy_owner;
    select set_config('tenancy.context', '${signContext(keys, scope, Date.now())}', true),
           set_config('search_path', '${identifier(schema)}, extensions, pg_temp', true)`;
}

const beginning = (side: Side, isolation: Isolation, states: readonly HomeState[] | undefined): string =>
  states === undefined
    ? `begin isolation level ${isolation} read only; ${becomeOwner(side, 'r')}`
    : `begin isolation level ${isolation} read write; ${becomeOwner(side, 'w')};
       set local role tenancy_keeper;
       do $$ begin
         perform from tenancy.homes where home_id = '${side.home.homeId}' and mover = '${side.mover}'
            and state in (${states.map((state) => `'${state}'`).join(', ')}) for share;
         if not found then raise exception 'superseded' using errcode = 'TN010'; end if;
       end $$;
       set local role tenancy_owner`;

const inTransaction = <T>(
  side: Side,
  isolation: Isolation,
  states: readonly HomeState[] | undefined,
  work: (first: readonly unknown[]) => Promise<T>,
  first: string,
): Promise<T> =>
  orRollBack(side, async () => {
    const { connection } = side;
    const { rows } = await connection.query<unknown>(`${beginning(side, isolation, states)}; ${first}`);
    const result = await work(rows);
    await connection.query('commit');
    return result;
  });

async function orRollBack<T>({ connection }: Side, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    // A lost connection has rolled back by itself; its first error is the one to tell.
    await connection.query('rollback').catch(() => {});
    throw (error as { code?: string }).code === 'TN010' ? superseded() : error;
  }
}
