import { QueryError, TenantryError } from '../errors.ts';
import type { Call } from './call.ts';
import { callerError } from './caller-error.ts';
import type { Connection } from './connection.ts';
import { StepFailure, Stopped } from './failure.ts';
import { type Answer, type Part, part } from './round-trip.ts';
import type { Sql } from './sql.ts';
import { toStatement } from './statement.ts';
import { assertStatement, type TransactionVerb, transactionVerb } from './statement-guard.ts';
import type { QueryConfig, QueryResult, Row, TenantTransaction } from './types.ts';

/** The statements of one open transaction, one after the other, each in a round trip of its own. */
export class Transaction implements TenantTransaction {
  readonly #call: Call;
  readonly #connection: Connection;
  readonly #accept: (answer: Answer) => QueryResult;
  /** Statements wait for each other, as with one client of node-postgres. */
  #turn: Promise<unknown> = Promise.resolve();
  #ended = false;
  /** Transactions that an ORM has begun inside this one; each is a savepoint. */
  #nested = 0;
  /** What failed the transaction, should nobody roll back to a savepoint before COMMIT. */
  #failure: unknown;

  constructor(call: Call, connection: Connection, accept: (answer: Answer) => QueryResult) {
    this.#call = call;
    this.#connection = connection;
    this.#accept = accept;
  }

  async query<R = Row>(
    text: string | Sql | QueryConfig,
    values?: readonly unknown[],
  ): Promise<QueryResult<R>> {
    const statement = toStatement(text, values);
    const verb = transactionVerb(statement.text)?.verb;
    if (!verb) assertStatement(statement.text);
    return (await this.#inTurn(() =>
      verb && verb !== 'pass' ? this.#nest(verb) : this.#run([{ step: 'statement', statement }]),
    )) as QueryResult<R>;
  }

  async connect(): Promise<this & { release(): void }> {
    return this;
  }

  /** For ORMs that took the transaction for a pool's client: there is nothing to give back. */
  release(): void {}

  /** @throws StepFailure, Stopped, TenantryError */
  commit(): Promise<void> {
    return this.#inTurn(async () => {
      this.#ended = true;
      if (this.#nested > 0) {
        throw refused('A transaction begun inside db.transaction was left open: await it before returning.');
      }
      if (this.#connection.status === 'E') throw new QueryError('25P02', undefined, this.#failure);
      await this.#call.commit(this.#connection);
    });
  }

  /** Nothing more may be sent: the connection is no longer this transaction's. */
  end(): void {
    this.#ended = true;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(() => {
      if (this.#ended) throw refused('The transaction has ended: await every query inside the callback.');
      return work();
    });
    this.#turn = result.catch(() => {});
    return result;
  }

  async #nest(verb: Exclude<TransactionVerb['verb'], 'pass'>): Promise<QueryResult> {
    if (verb === 'begin') {
      const result = await this.#run([part('statement', `SAVEPOINT tenantry_${this.#nested + 1}`)]);
      this.#nested += 1;
      return { ...result, command: 'BEGIN' };
    }
    if (this.#nested === 0) {
      throw refused(
        `"${verb}" is refused: db.transaction commits when its callback resolves and rolls back when it throws.`,
      );
    }
    const savepoint = `SAVEPOINT tenantry_${this.#nested}`;
    const release = part('statement', `RELEASE ${savepoint}`);
    const result = await this.#run(
      verb === 'commit' ? [release] : [part('statement', `ROLLBACK TO ${savepoint}`), release],
    );
    this.#nested -= 1;
    return { ...result, command: verb.toUpperCase() };
  }

  async #run(parts: readonly Part[]): Promise<QueryResult> {
    try {
      const answer = await this.#connection.run(parts, this.#call.bounds, this.#call.stop);
      return this.#accept(answer);
    } catch (error) {
      if (error instanceof StepFailure || error instanceof Stopped) this.#failure ??= error;
      throw callerError(error, this.#call.limits);
    }
  }
}

function refused(message: string): TenantryError {
  return new TenantryError('statement_refused', message);
}
