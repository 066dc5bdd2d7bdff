import { callerError } from './caller-error.ts';
import { type Connection, unlessStopped } from './connection.ts';
import { StepFailure, Stopped } from './failure.ts';
import type { ConnectionPools, Lease } from './pools.ts';
import { ANSWER_MS, Retries } from './retries.ts';
import { type Answer, type Bounds, type Part, part } from './round-trip.ts';
import type { CallLimits, FindPassage, Passage } from './types.ts';

/** What a timer takes. */
const LONGEST_MS = 2 ** 31 - 1;
/** A connection had only after this time asks for a new context, ms. */
const LATE_MS = 20;

/** One call's way into its tenant's home: route, connection, limits, and what is tried again. */
export class Call {
  readonly limits: CallLimits;
  readonly bounds: Bounds;
  readonly #find: FindPassage;
  readonly #pools: ConnectionPools;
  readonly #stop = new AbortController();
  readonly #end = () => this.#stop.abort();
  #timer: NodeJS.Timeout | undefined;
  /** What a transaction may do must be said, at the price of BEGIN and COMMIT. */
  #saysAll = false;
  /** How many of the call's queries and transactions are under way. */
  #underWay = 0;

  constructor(find: FindPassage, limits: CallLimits, pools: ConnectionPools) {
    this.#find = find;
    this.#pools = pools;
    this.limits = limits;
    this.bounds = { maxRows: limits.maxRows, maxBytes: limits.maxBytes, cutOff: limits.mode === 'r' };
  }

  /** Fires when the caller is gone or the deadline has passed, while something is under way. */
  get stop(): AbortSignal {
    return this.#stop.signal;
  }

  /**
   * Watches caller and deadline as long as `work` runs, and leaves nothing behind: as AbortSignal.any and
   * .timeout, for half of their price. Every call pays it.
   */
  async watched<T>(work: () => Promise<T>): Promise<T> {
    const { signal } = this.limits;
    if (this.#underWay++ === 0) {
      if (signal.aborted || this.#remaining() === 0) this.#end();
      signal.addEventListener('abort', this.#end);
      this.#timer = setTimeout(this.#end, Math.min(this.#remaining(), LONGEST_MS)).unref();
    }
    try {
      return await work();
    } finally {
      if (--this.#underWay === 0) {
        clearTimeout(this.#timer);
        signal.removeEventListener('abort', this.#end);
      }
    }
  }

  /**
   * Takes a connection of the home and does `first` on it, which begins with `enter`'s step. Does it again, on
   * another connection or route, when the home has refused it or when nothing of it can have been committed.
   * The lease is the caller's to end. @throws TenantryError
   */
  async admit<T>(
    first: (connection: Connection, enter: Part) => Promise<T>,
  ): Promise<{ lease: Lease; value: T }> {
    const retries = new Retries(this.limits);
    for (;;) {
      try {
        return await this.#attempt(retries, first);
      } catch (error) {
        if (this.#mustSayAll(error)) this.#saysAll = true;
        else if (!(await retries.worthwhile(error, this.stop))) throw callerError(error, this.limits);
      }
    }
  }

  /** A login has made another isolation level its default; or the runtime is an older one, which makes no reader read-only. */
  #mustSayAll(error: unknown): boolean {
    if (this.#saysAll || !(error instanceof StepFailure) || !error.atDoor) return false;
    return error.sqlstate === 'TN009' || (error.sqlstate === 'TN006' && this.limits.mode === 'r');
  }

  async #attempt<T>(retries: Retries, first: (connection: Connection, enter: Part) => Promise<T>) {
    const begun = Date.now();
    const { endpoint, context } = await this.#passage(retries.takeRefresh());
    retries.heading(endpoint);
    const lease = await this.#pools.acquire(endpoint, this.stop);
    try {
      // Connecting or waiting has used up time that this context still promises to the statement.
      const current = Date.now() - begun > LATE_MS ? (await this.#passage(false)).context : context;
      return {
        lease,
        value: await first(lease.connection, part('enter', 'call tenancy.admit($1)', current)),
      };
    } catch (error) {
      await this.giveBack(lease, error);
      throw error;
    }
  }

  /**
   * One statement, as a transaction of its own. One Sync is one transaction and `admit` makes a reading one
   * read-only: with BEGIN and COMMIT around it a read would cost 8 % more.
   */
  sendAlone(connection: Connection, enter: Part, statement: Part): Promise<Answer> {
    const { mode, roundTrips } = this.limits;
    const bare = mode === 'r' && roundTrips === 'one' && !this.#saysAll;
    return this.#send(
      connection,
      bare ? [enter, statement] : [beginning(mode), enter, statement, part('commit', 'COMMIT')],
    );
  }

  /** Opens a transaction that stays open. */
  async begin(connection: Connection, enter: Part): Promise<void> {
    await this.#send(connection, [beginning(this.limits.mode), enter]);
  }

  async commit(connection: Connection): Promise<void> {
    await this.#send(connection, [part('commit', 'COMMIT')]);
  }

  /** The parts in one round trip, or one by one for a proxy that would part them. The tool's statement is answered. */
  async #send(connection: Connection, parts: readonly Part[]): Promise<Answer> {
    if (this.limits.roundTrips === 'one') return connection.run(parts, this.bounds, this.stop);
    let tools: Answer | undefined;
    let last: Answer | undefined;
    for (const single of parts) {
      last = await connection.run([single], this.bounds, this.stop);
      if (single.step === 'statement') tools = last;
      // Here the transaction is still open: nothing of a result that can't be handed over is committed.
      if (tools?.tooLarge) break;
    }
    return (tools ?? last)!;
  }

  /** Ends the lease after a failure: cleaned if that is certain to work, destroyed if not. */
  async giveBack(lease: Lease, error: unknown): Promise<void> {
    const { connection } = lease;
    if (error instanceof Stopped) connection.destroy();
    else if (error instanceof StepFailure && (error.meaning === 'lost' || error.meaning === 'starting'))
      lease.lost();
    else if (error instanceof StepFailure && error.poisoned) await connection.discard(this.stop);
    else await connection.rollBack(this.stop);
    lease.release();
  }

  #passage(refresh: boolean): Promise<Passage> {
    const remaining = this.#remaining();
    const statementMs = Math.max(1, Math.floor(remaining - Math.min(ANSWER_MS, remaining / 10)));
    return unlessStopped(this.#find({ mode: this.limits.mode, statementMs, refresh }), this.stop);
  }

  #remaining(): number {
    return Math.max(0, this.limits.deadline - Date.now());
  }
}

/** The isolation level is said each time: a session's default may be poisoned. */
function beginning(mode: CallLimits['mode']): Part {
  return part('begin', `BEGIN ISOLATION LEVEL READ COMMITTED ${mode === 'r' ? 'READ ONLY' : 'READ WRITE'}`);
}
