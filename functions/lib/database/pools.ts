import { setImmediate } from 'node:timers/promises';
import { RetryableError } from '../errors.ts';
import { Connection } from './connection.ts';
import { Stopped } from './failure.ts';
import { type Endpoint, placeOf } from './types.ts';

export interface PoolLimits {
  /** Connections over all tenants together: what this process may take of the database's budget. */
  readonly maxConnections: number;
  /** A connection idle for longer is not used again: the proxy or the server may have closed its end. */
  readonly maxIdleMs: number;
  /** How long a call waits for a connection before it is answered busy. */
  readonly waitMs: number;
  readonly clock?: () => number;
}

export interface PoolGauges {
  readonly connections: number;
  readonly idle: number;
  readonly inUse: number;
  readonly waiting: number;
  /** Databases and logins that have a connection now. */
  readonly keys: number;
  /** Calls that ever had to wait for a connection. */
  readonly waits: number;
}

/** A connection lent to one call. One of the two methods ends the loan; a second call does nothing. */
export interface Lease {
  readonly connection: Connection;
  /** Returns it; only a connection that is idle and without a transaction is kept. */
  release(): void;
  /** The server's end is lost: idle connections to the same place will be no better. */
  lost(): void;
}

export interface ConnectionPools {
  /** @throws ConnectFailure, Stopped, RetryableError `busy` */
  acquire(endpoint: Endpoint, signal: AbortSignal): Promise<Lease>;
  gauges(): PoolGauges;
  /** Closes what is idle, refuses what waits; a connection in use is closed when it is returned. */
  close(): Promise<void>;
}

interface Idle {
  readonly key: string;
  readonly connection: Connection;
  readonly since: number;
}

/** The right to one of the connections, and one to use if there was one. */
interface Admission {
  readonly slot: symbol;
  readonly connection: Idle | undefined;
}

interface Waiter {
  readonly key: string;
  /** How often a later waiter, whom the returned connection fitted, went first. */
  passed: number;
  admit(connection: Idle | undefined): void;
  refuse(error: Error): void;
}

/** A waiter may be passed this often, for a connection that fits another without a new handshake (7-19 ms). */
const MAX_PASSED = 16;
/** Idle for longer, ms: the socket's news may not have been read yet (a frozen Lambda reads none). */
const FRESH_MS = 1_000;

/**
 * One set of connections for all databases and logins, so that one cap holds over all of them. There are no
 * timers for idle connections: a frozen Lambda environment runs none, so age is checked at taking out.
 * Whenever a call waits, the cap is reached and nothing is idle: every return serves a waiter first.
 */
export function createConnectionPools(limits: PoolLimits): ConnectionPools {
  const clock = limits.clock ?? Date.now;
  /** Least recently used first. */
  const idle: Idle[] = [];
  /** What calls hold, with or without a connection yet, and for which key. */
  const slots = new Map<symbol, string>();
  const waiting: Waiter[] = [];
  let closed = false;
  let waits = 0;

  async function acquire(endpoint: Endpoint, signal: AbortSignal): Promise<Lease> {
    if (closed) throw shuttingDown();
    if (signal.aborted) throw new Stopped();
    // Connections are shared within a key and never between two.
    const key = placeOf(endpoint);
    const { slot, connection } = takeNow(key) ?? (await wait(key, signal));
    try {
      return lend(slot, key, (await living(connection, key)) ?? (await Connection.open(endpoint, signal)));
    } catch (error) {
      giveBack(slot, undefined);
      throw error;
    }
  }

  function takeNow(key: string): Admission | undefined {
    if (waiting.length > 0) return undefined;
    const connection = takeIdle(key);
    if (!connection && idle.length + slots.size >= limits.maxConnections) {
      const other = idle.shift();
      if (!other) return undefined;
      closeQuietly(other);
    }
    return { slot: takeSlot(key), connection };
  }

  function takeSlot(key: string): symbol {
    const slot = Symbol(key);
    slots.set(slot, key);
    return slot;
  }

  function takeIdle(key: string): Idle | undefined {
    for (let at = idle.length - 1; at >= 0; at -= 1) {
      if (idle[at]!.key !== key) continue;
      const [found] = idle.splice(at, 1);
      if (clock() - found!.since <= limits.maxIdleMs) return found;
      closeQuietly(found!);
    }
    return undefined;
  }

  /** What the server has closed meanwhile shows after one turn of the event loop, and a write must not find out. */
  async function living(candidate: Idle | undefined, key: string): Promise<Connection | undefined> {
    for (let next = candidate; next; next = takeIdle(key)) {
      if (clock() - next.since > FRESH_MS) await setImmediate();
      if (!next.connection.gone) return next.connection;
    }
    return undefined;
  }

  function wait(key: string, signal: AbortSignal): Promise<Admission> {
    const { promise, resolve, reject } = Promise.withResolvers<Admission>();
    const leave = (settle: () => void) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      if (waiting.includes(waiter)) waiting.splice(waiting.indexOf(waiter), 1);
      settle();
    };
    const waiter: Waiter = {
      key,
      passed: 0,
      admit: (connection) => leave(() => resolve({ slot: takeSlot(key), connection })),
      refuse: (error) => leave(() => reject(error)),
    };
    const onAbort = () => waiter.refuse(new Stopped());
    const timer = setTimeout(() => waiter.refuse(allTaken()), limits.waitMs);
    signal.addEventListener('abort', onAbort, { once: true });
    waiting.push(waiter);
    waits += 1;
    return promise;
  }

  function lend(slot: symbol, key: string, connection: Connection): Lease {
    connection.onGone = undefined;
    return {
      connection,
      release: () => giveBack(slot, connection),
      lost: () => {
        if (!slots.has(slot)) return;
        connection.destroy();
        for (const other of idle.filter((entry) => entry.key === key)) other.connection.destroy();
        giveBack(slot, undefined);
      },
    };
  }

  function giveBack(slot: symbol, connection: Connection | undefined): void {
    const key = slots.get(slot);
    if (!slots.delete(slot)) return;
    const usable = connection && !connection.gone && connection.status === 'I' && !closed;
    if (connection && !usable) connection.destroy();
    const returned = usable ? keep(key!, connection) : undefined;
    const waiter = nextWaiter(key!);
    if (!waiter) return;
    if (returned) idle.splice(idle.indexOf(returned), 1);
    const fitting = waiter.key === key ? returned : undefined;
    if (returned && !fitting) closeQuietly(returned);
    waiter.admit(fitting);
  }

  function keep(key: string, connection: Connection): Idle {
    const entry = { key, connection, since: clock() };
    connection.onGone = () => {
      if (idle.includes(entry)) idle.splice(idle.indexOf(entry), 1);
    };
    idle.push(entry);
    return entry;
  }

  /** First come, first served, but a connection that fits is not thrown away for it. */
  function nextWaiter(key: string): Waiter | undefined {
    const first = waiting[0];
    if (!first || first.passed >= MAX_PASSED) return first;
    const fitting = waiting.find((waiter) => waiter.key === key) ?? first;
    if (fitting !== first) first.passed += 1;
    return fitting;
  }

  return {
    acquire,
    gauges: () => ({
      connections: idle.length + slots.size,
      idle: idle.length,
      inUse: slots.size,
      waiting: waiting.length,
      keys: new Set([...idle.map(({ key }) => key), ...slots.values()]).size,
      waits,
    }),
    close: async () => {
      closed = true;
      for (const waiter of [...waiting]) waiter.refuse(shuttingDown());
      await Promise.all(idle.splice(0).map(({ connection }) => connection.close()));
    },
  };
}

/** A farewell that fails leaves nothing to be done. */
function closeQuietly({ connection }: Idle): void {
  connection.close().catch(() => connection.destroy());
}

const shuttingDown = () => new RetryableError('unavailable', 'The server is shutting down; try again.');
const allTaken = () =>
  new RetryableError('busy', 'All database connections are in use; try again in a moment.');
