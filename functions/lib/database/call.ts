import { callerError } from './caller-error.ts';
import { type Connection, unlessStopped } from './connection.ts';
import { StepFailure, Stopped } from './failure.ts';
import type { ConnectionPools, Lease } from './pools.ts';
import { Retries } from './retries.ts';
import { type Answer, type Bounds, type Part, part } from './round-trip.ts';
import type { CallLimits, FindPassage, Passage } from './types.ts';

/** What a timer takes. */
const LONGEST_MS = 2 ** 31 - 1;
/** The server's own answer to a statement that ran too long must arrive before our deadline: this much earlier, ms. */
const ANSWER_MS = 250;
/** A connection had only after this time asks for a new context, ms. */
const LATE_MS = 20;

/** One call's way into its tenant's home: route, connection, limits, and what is tried again. */
export class Call {
  readonly limits: CallLimits;
  readonly bounds: Bounds;
  /** Fires when the caller is gone or the deadline has passed. */
  readonly stop: AbortSignal;
  readonly #find: FindPassage;
  readonly #pools: ConnectionPools;

  constructor(find: FindPassage, limits: CallLimits, pools: ConnectionPools) {
    this.#find = find;
    this.#pools = pools;
    this.limits = limits;
    this.bounds = { maxRows: limits.maxRows, maxBytes: limits.maxBytes, cutOff: limits.mode === 'r' };
    this.stop = stopSignal(limits.signal, this.#remaining());
  }

  /**
   * Takes a connection of the home and does `first` on it, which begins with BEGIN and enter. Does it again, on
   * another connection or route, when the home has refused it or when nothing of it can have been committed.
   * The lease is the caller's to end. @throws TenantryError
   */
  async admit<T>(
    first: (connection: Connection, doorway: Part[]) => Promise<T>,
  ): Promise<{ lease: Lease; value: T }> {
    const retries = new Retries(this.limits);
    for (;;) {
      try {
        return await this.#attempt(retries, first);
      } catch (error) {
        if (!(await retries.worthwhile(error, this.stop))) throw callerError(error, this.limits);
      }
    }
  }

  async #attempt<T>(retries: Retries, first: (connection: Connection, doorway: Part[]) => Promise<T>) {
    const begun = Date.now();
    const { endpoint, context } = await this.#passage(retries.takeRefresh());
    retries.heading(endpoint);
    const lease = await this.#pools.acquire(endpoint, this.stop);
    try {
      // Connecting or waiting has used up time that this context still promises to the statement.
      const current = Date.now() - begun > LATE_MS ? (await this.#passage(false)).context : context;
      return { lease, value: await first(lease.connection, doorway(this.limits.mode, current)) };
    } catch (error) {
      await this.giveBack(lease, error);
      throw error;
    }
  }

  /** The parts in one round trip, or one by one for a proxy that would part them. The tool's statement is answered. */
  async send(connection: Connection, parts: readonly Part[]): Promise<Answer> {
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

/** As AbortSignal.any and .timeout together, for half of their price: every call pays it. */
function stopSignal(caller: AbortSignal, ms: number): AbortSignal {
  const stop = new AbortController();
  const end = () => {
    clearTimeout(timer);
    caller.removeEventListener('abort', end);
    stop.abort();
  };
  const timer = setTimeout(end, Math.min(ms, LONGEST_MS)).unref();
  if (caller.aborted) end();
  else caller.addEventListener('abort', end);
  return stop.signal;
}

/** What every transaction begins with. The isolation level is said each time: a session's default may be poisoned. */
function doorway(mode: CallLimits['mode'], context: string): Part[] {
  const access = mode === 'r' ? 'READ ONLY' : 'READ WRITE';
  return [
    part('begin', `BEGIN ISOLATION LEVEL READ COMMITTED ${access}`),
    part('enter', 'call tenancy.admit($1)', context),
  ];
}
