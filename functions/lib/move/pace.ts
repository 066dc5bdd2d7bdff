import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlConnection } from '../database/connect.ts';

/** Transactions of a server in a second from which on others are at work that would wait behind the mover. */
const BUSY = 200;
/** After a piece of work so much of its time is left to others: of a busy server's time a move takes a quarter. */
const REST = 3;
const LONGEST_MS = 5_000;

/**
 * A move has time, and neighbours have not: on a server that is busy it rests after every piece of work. How busy it is
 * the server's own count of transactions says, which everybody may read.
 */
export class Pace {
  readonly #connection: ControlConnection;
  #last: { readonly at: number; readonly count: number } | undefined;

  constructor(connection: ControlConnection) {
    this.#connection = connection;
  }

  /** @returns what `work` does, after a rest if others are at work */
  async after<T>(work: () => Promise<T>): Promise<T> {
    const begun = performance.now();
    this.#last ??= await this.#count();
    const result = await work();
    const last = this.#last;
    const now = await this.#count();
    this.#last = now;
    const perSecond = ((now.count - last.count) * 1_000) / Math.max(now.at - last.at, 1);
    if (perSecond > BUSY) await sleep(Math.min((now.at - begun) * REST, LONGEST_MS));
    return result;
  }

  async #count() {
    // Within one transaction the numbers would otherwise stay what they were.
    const { rows } = await this.#connection.query<{ count: string }>(
      'select pg_stat_clear_snapshot(); select sum(xact_commit + xact_rollback)::text as count from pg_stat_database',
    );
    return { at: performance.now(), count: Number(rows[0]!.count) };
  }
}
