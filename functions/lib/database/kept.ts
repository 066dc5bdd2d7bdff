import type { Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import type pg from 'pg';
import { type Endpoint, placeOf } from './types.ts';

/** Well below when the server ends it: a function that was frozen for longer takes no dead one. */
const idleMs = 15_000;
/** A frozen environment runs no timer, so the server ends what it has kept, s. */
const endedAfter = 60;
/**
 * All that a session can leave behind, locks first of all, but for its plans: those are what the next one is to find.
 * `discard all` would throw them away too.
 */
const putAside = `close all; reset session authorization; reset all; deallocate all; unlisten *; select pg_advisory_unlock_all();
  discard temp; discard sequences; set idle_session_timeout = '${endedAfter}s'`;

interface Idle {
  readonly key: string;
  readonly client: pg.Client;
  readonly since: number;
  readonly timer: NodeJS.Timeout;
  readonly onGone: () => void;
}

/**
 * The control plane's connections between one piece of work and the next. A new one costs six round trips, a process and
 * cold caches: 20 to 40 ms a step. Keeps no process alive.
 */
export class KeptConnections {
  #idle: Idle[] = [];
  readonly #atMost: number;
  readonly #clock: () => number;

  /** @param atMost the connections that the budget gives to one environment: the catalog, and one home */
  constructor(atMost = 2, clock = Date.now) {
    this.#atMost = atMost;
    this.#clock = clock;
  }

  async take(endpoint: Endpoint): Promise<pg.Client | undefined> {
    // A server that has gone meanwhile is heard of first.
    await setImmediate();
    const key = placeOf(endpoint);
    const idle = this.#idle.findLast((one) => one.key === key);
    if (idle === undefined) {
      this.#trim(this.#atMost - 1);
      return undefined;
    }
    this.#forget(idle);
    if (this.#clock() - idle.since > idleMs) {
      end(idle.client);
      return undefined;
    }
    socketOf(idle.client).ref();
    return idle.client;
  }

  /**
   * Takes back one that is in no transaction and does nothing. What makes it as new is on its way to the server when this
   * returns, should the process be frozen then; the next statement waits behind it.
   */
  keep(endpoint: Endpoint, client: pg.Client): void {
    const onGone = () => this.#drop(idle);
    const timer = setTimeout(onGone, idleMs).unref();
    const idle: Idle = { key: placeOf(endpoint), client, since: this.#clock(), timer, onGone };
    client.query(putAside).catch(() => {
      this.#forget(idle);
      end(client);
    });
    socketOf(client).unref();
    client.once('end', onGone).once('error', onGone);
    this.#idle.push(idle);
    this.#trim(this.#atMost);
  }

  #trim(length: number): void {
    while (this.#idle.length > length) this.#drop(this.#idle[0]!);
  }

  #drop(idle: Idle): void {
    if (this.#forget(idle)) end(idle.client);
  }

  #forget(idle: Idle): boolean {
    const at = this.#idle.indexOf(idle);
    if (at < 0) return false;
    this.#idle.splice(at, 1);
    clearTimeout(idle.timer);
    idle.client.off('end', idle.onGone).off('error', idle.onGone);
    return true;
  }
}

const socketOf = (client: pg.Client) => client.connection.stream as Socket;

const end = (client: pg.Client): void => void client.end().catch(() => {});
