import pg from 'pg';
import { type Step, StepFailure } from './failure.ts';
import { writeMessages } from './messages.ts';
import type { Statement } from './statement.ts';
import type { QueryResult } from './types.ts';

/** One protocol step: Parse, Bind and Execute of an unnamed statement. */
export interface Part {
  readonly step: Step;
  readonly statement: Statement;
}

export const part = (step: Step, text: string, ...values: string[]): Part => ({
  step,
  statement: { text, values },
});

export interface Bounds {
  readonly maxRows: number;
  readonly maxBytes: number;
  /** Stop receiving when there is too much, at the price of the connection. Otherwise the rest is read and dropped. */
  readonly cutOff: boolean;
}

/** What a tool's statement gave. */
export interface Answer {
  readonly result: QueryResult;
  /** More than the bounds allow: `result` is incomplete and must not be used. */
  readonly tooLarge: 'rows' | 'bytes' | undefined;
}

/** Room for what is not row data (descriptions, notices), bytes. */
const FRAMING = 64 * 1024;
/** A write's answer is read to its end to learn that it was committed, but not at any price. */
const DRAIN_FACTOR = 8;

/** What is used of node-postgres' connection and of its result; its own cursor uses the same. */
interface Wire {
  readonly stream: { write(message: Buffer): void };
  sendCopyFail(message: string): void;
}
interface ResultReader extends QueryResult {
  addFields(fields: QueryResult['fields']): void;
  parseRow(fields: readonly (string | null)[]): QueryResult['rows'][number];
  addCommandComplete(message: { text: string }): void;
}

/**
 * Several steps under ONE Sync, in one write: a node-postgres "submittable", as pg-cursor is one.
 * A success settles only when the server is ready for the next query, because a deferred constraint fails
 * after the statement has completed. A failure settles at once: the server is ready when the ROLLBACK that
 * must follow has been answered.
 */
export class RoundTrip {
  readonly #parts: readonly Part[];
  readonly #bounds: Bounds;
  readonly #result: ResultReader;
  readonly #settled = Promise.withResolvers<Answer>();
  /** Index of the step that the server answers now. */
  #at = 0;
  #rows = 0;
  #bytes = 0;
  /** Bytes off the socket: a single value of a gigabyte is buffered before it becomes a row. */
  #received = 0;
  #tooLarge: Answer['tooLarge'];
  #unreadable: { readonly error: unknown } | undefined;

  constructor(parts: readonly Part[], bounds: Bounds) {
    this.#parts = parts;
    this.#bounds = bounds;
    const tool = parts.find(({ step }) => step === 'statement')?.statement;
    this.#result = new pg.Result(tool?.rowMode as never, tool?.types as never) as unknown as ResultReader;
  }

  /** @throws StepFailure */
  get answer(): Promise<Answer> {
    return this.#settled.promise;
  }

  submit(wire: Wire): void {
    const outgoing = this.#parts.map(({ step, statement }) => {
      const tools = step === 'statement';
      // One row more than wanted tells "exactly as many" from "more".
      return { statement, describe: tools, maxRows: tools ? this.#bounds.maxRows + 1 : 0 };
    });
    wire.stream.write(writeMessages(outgoing));
  }

  handleRowDescription(message: { fields: QueryResult['fields'] }): void {
    try {
      this.#result.addFields(message.fields);
    } catch (error) {
      // `types` that have no parser for this, or throw: from here nobody would catch it, and the process would end.
      this.#unreadable = { error };
    }
  }

  handleDataRow(message: { fields: readonly (string | null)[]; length: number }): void {
    if (this.#step !== 'statement') return;
    this.#rows += 1;
    this.#bytes += message.length;
    if (this.#rows > this.#bounds.maxRows) this.#tooLarge ??= 'rows';
    if (this.#bytes > this.#bounds.maxBytes) this.#overflow();
    if (this.#tooLarge || this.#unreadable) return;
    try {
      this.#result.rows.push(this.#result.parseRow(message.fields));
    } catch (error) {
      // A type parser of the tool's or the ORM's own. The rest must still be read.
      this.#unreadable = { error };
    }
  }

  handleCommandComplete(message: { text: string }): void {
    if (this.#step === 'statement') this.#result.addCommandComplete(message);
    // PostgreSQL answers the COMMIT of a failed transaction with a friendly ROLLBACK.
    if (this.#step === 'commit' && message.text !== 'COMMIT') {
      const refusal = new pg.DatabaseError('the transaction had failed before', 0, 'error');
      refusal.code = '25P02';
      this.handleError(refusal);
    }
    this.#at += 1;
  }

  handlePortalSuspended(): void {
    this.#at += 1;
  }

  handleEmptyQuery(): void {
    this.#at += 1;
  }

  /** Called for what the socket has brought, before it is parsed. */
  received(bytes: number): void {
    this.#received += bytes;
    if (this.#bounds.cutOff && this.#received > this.#bounds.maxBytes + FRAMING) this.#overflow();
    else if (this.#received > DRAIN_FACTOR * this.#bounds.maxBytes + FRAMING) {
      this.handleError(new Error('more was returned than can be read and dropped'));
    }
  }

  handleCopyInResponse(wire: Wire): void {
    wire.sendCopyFail('COPY is not for tools');
  }

  handleCopyData(): void {}

  handleError(error: unknown): void {
    const commitSent = this.#parts.at(-1)!.step === 'commit';
    this.#settled.reject(new StepFailure(this.#step, error, commitSent));
  }

  handleReadyForQuery(): void {
    if (this.#unreadable) this.#settled.reject(this.#unreadable.error);
    else this.#settled.resolve(this.#current());
  }

  get #step(): Step {
    return this.#parts[Math.min(this.#at, this.#parts.length - 1)]!.step;
  }

  #overflow(): void {
    this.#tooLarge ??= 'bytes';
    if (this.#bounds.cutOff) this.#settled.resolve(this.#current());
  }

  #current(): Answer {
    const { rows, rowCount, command, fields, oid } = this.#result;
    return { result: { rows, rowCount, command, fields, oid }, tooLarge: this.#tooLarge };
  }
}
