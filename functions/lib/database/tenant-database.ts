import { ResultTooLargeError } from '../errors.ts';
import { Call } from './call.ts';
import { callerError } from './caller-error.ts';
import { unlessStopped } from './connection.ts';
import type { ConnectionPools } from './pools.ts';
import type { Answer } from './round-trip.ts';
import type { Sql } from './sql.ts';
import { type Statement, toStatement } from './statement.ts';
import { assertStatement } from './statement-guard.ts';
import { Transaction } from './transaction.ts';
import type {
  CallLimits,
  FindPassage,
  QueryConfig,
  QueryResult,
  Row,
  TenantDatabase,
  TenantTransaction,
} from './types.ts';

/** What one call has asked of the database, for its log line. */
export interface CallStats {
  rows: number;
  statements: number;
}

/**
 * The database as one call of one tenant sees it.
 * @param find decides route and context, per attempt; called again with `refresh` when the home refuses the last one
 */
export function openTenantDatabase(
  find: FindPassage,
  limits: CallLimits,
  pools: ConnectionPools,
): TenantDatabase & { stats(): CallStats } {
  return new BoundDatabase(new Call(find, limits, pools));
}

class BoundDatabase implements TenantDatabase {
  readonly #call: Call;
  readonly #stats: CallStats = { rows: 0, statements: 0 };

  constructor(call: Call) {
    this.#call = call;
  }

  async query<R = Row>(
    text: string | Sql | QueryConfig,
    values?: readonly unknown[],
  ): Promise<QueryResult<R>> {
    const statement = toStatement(text, values);
    assertStatement(statement.text);
    return this.#call.watched(() => this.#query<R>(statement));
  }

  async #query<R>(statement: Statement): Promise<QueryResult<R>> {
    const { lease, value: answer } = await this.#call.admit((connection, enter) =>
      this.#call.sendAlone(connection, enter, { step: 'statement', statement }),
    );
    // Only where COMMIT was still to be sent can it be left out.
    const committed = lease.connection.status === 'I';
    if (!committed) await lease.connection.rollBack(this.#call.stop);
    lease.release();
    return this.#accept<R>(answer, committed && this.#call.limits.mode === 'w');
  }

  transaction<T>(work: (tx: TenantTransaction) => Promise<T>): Promise<T> {
    return this.#call.watched(() => this.#transaction(work));
  }

  async #transaction<T>(work: (tx: TenantTransaction) => Promise<T>): Promise<T> {
    const call = this.#call;
    const { lease } = await call.admit((connection, enter) => call.begin(connection, enter));
    const tx = new Transaction(call, lease.connection, (answer) => this.#accept(answer, false));
    try {
      const value = await unlessStopped(
        // A callback that throws before its first await is no different from one that rejects.
        (async () => work(tx))(),
        call.stop,
      );
      await tx.commit();
      lease.release();
      return value;
    } catch (error) {
      tx.end();
      await call.giveBack(lease, error);
      throw callerError(error, call.limits);
    }
  }

  async connect(): Promise<this & { release(): void }> {
    return this;
  }

  /** For ORMs that took the database for a pool's client: there is nothing to give back. */
  release(): void {}

  stats(): CallStats {
    return { ...this.#stats };
  }

  #accept<R>({ result, tooLarge }: Answer, committed: boolean): QueryResult<R> {
    this.#stats.statements += 1;
    const { maxRows, maxBytes } = this.#call.limits;
    if (tooLarge) {
      const limit = tooLarge === 'rows' ? `${maxRows} rows` : `${maxBytes} bytes`;
      throw new ResultTooLargeError(
        `The statement returned more than ${limit}; add a LIMIT or ask for less.`,
        committed,
      );
    }
    this.#stats.rows += result.rowCount ?? 0;
    return result as QueryResult<R>;
  }
}
