import pg from 'pg';
import { TenantryError } from '../errors.ts';
import { ConnectFailure, Stopped } from './failure.ts';
import { type Answer, type Bounds, type Part, part, RoundTrip } from './round-trip.ts';
import type { Endpoint } from './types.ts';

const CONNECT_MS = 3_000;
/** A server that has refused a statement answers a ROLLBACK at once; one that does not in this time is gone. */
const ROLLBACK_MS = 2_000;

const noRows: Bounds = { maxRows: 0, maxBytes: 64 * 1024, cutOff: true };

/**
 * One connection to PostgreSQL or its proxy, used by one call at a time. Whatever happens to it that leaves
 * a doubt about its state destroys it; there is no cancel request (RDS Proxy has none, and with a pooler in
 * between it could hit a neighbour).
 */
export class Connection {
  readonly #client: pg.Client;
  #trip: RoundTrip | undefined;
  #gone = false;
  /** Told once, when the connection is no longer usable. */
  onGone: (() => void) | undefined;

  private constructor(client: pg.Client) {
    this.#client = client;
    // Without a listener a connection that dies while idle would end the process.
    client.on('error', () => this.destroy());
    client.on('end', () => this.destroy());
    // Off the stream of after the TLS handshake.
    client.connection.stream.on('data', (chunk: Buffer) => this.#trip?.received(chunk.length));
  }

  /** @throws ConnectFailure, Stopped */
  static async open(endpoint: Endpoint, stop: AbortSignal): Promise<Connection> {
    try {
      return new Connection(await connectClient(endpoint, false, stop));
    } catch (error) {
      if (!(error instanceof ConnectFailure) || error.meaning !== 'credential') throw error;
      // The password may have been rotated since it was cached; more than one look is not worth it.
      return new Connection(await connectClient(endpoint, true, stop));
    }
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** `I` idle, `T` in a transaction, `E` in a failed one: as the server said last. */
  get status(): 'I' | 'T' | 'E' | null {
    return this.#client.getTransactionStatus();
  }

  /**
   * Sends the parts in one write and waits for their end. When `stop` fires the connection is destroyed:
   * what the server is doing ends by its `statement_timeout`.
   * @throws StepFailure, Stopped
   */
  async run(parts: readonly Part[], bounds: Bounds, stop: AbortSignal): Promise<Answer> {
    const trip = new RoundTrip(parts, bounds);
    this.#trip = trip;
    this.#client.query(trip as unknown as pg.Submittable);
    try {
      const answer = await unlessStopped(trip.answer, stop);
      // Too many rows end with the server ready again; bytes were cut off in the middle of the answer.
      if (answer.tooLarge === 'bytes' && bounds.cutOff) this.destroy();
      return answer;
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      this.destroy();
      throw new Stopped(parts.at(-1)!.step === 'commit');
    } finally {
      this.#trip = undefined;
    }
  }

  /** Ends a failed or unwanted transaction; a connection that does not come out of it clean is destroyed. */
  async rollBack(stop: AbortSignal): Promise<void> {
    await this.#settle('ROLLBACK', stop);
    if (this.status !== 'I') this.destroy();
  }

  /** For a session that is not as it should be: through a pooler the next client would inherit it. */
  async discard(stop: AbortSignal): Promise<void> {
    await this.#settle('ROLLBACK', stop);
    await this.#settle('DISCARD ALL', stop);
    this.destroy();
  }

  async #settle(text: string, stop: AbortSignal): Promise<void> {
    if (this.#gone) return;
    const limit = AbortSignal.any([stop, AbortSignal.timeout(ROLLBACK_MS)]);
    try {
      await this.run([part('statement', text)], noRows, limit);
    } catch {
      this.destroy();
    }
  }

  /** At once, without a word to the server. */
  destroy(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#client.connection.stream.destroy();
    this.onGone?.();
  }

  /** Takes leave of the server, for a connection that nobody uses. */
  async close(): Promise<void> {
    if (this.#gone) return;
    this.#gone = true;
    this.onGone?.();
    await this.#client.end();
  }
}

/** @throws ConnectFailure, Stopped */
export async function connectClient(
  endpoint: Endpoint,
  fresh: boolean,
  stop?: AbortSignal,
): Promise<pg.Client> {
  const password = await unlessStopped(endpoint.password(fresh), stop).catch((error) => {
    throw error instanceof Stopped || error instanceof TenantryError ? error : new ConnectFailure(error);
  });
  const client = new pg.Client({
    host: endpoint.host,
    port: endpoint.port,
    database: endpoint.database,
    user: endpoint.login,
    password,
    // No `options` and no timeouts in the startup message: RDS Proxy refuses them.
    application_name: 'tenantry',
    keepAlive: true,
    connectionTimeoutMillis: CONNECT_MS,
    ssl: endpoint.tls === 'verify' ? { rejectUnauthorized: true, minVersion: 'TLSv1.2' } : false,
  });
  // An error after the handshake but before the caller listens.
  client.on('error', () => {});
  try {
    await unlessStopped(client.connect(), stop);
    return client;
  } catch (error) {
    client.connection.stream.destroy();
    throw error instanceof Stopped ? error : new ConnectFailure(error);
  }
}

/** Waits for `promise`, but not beyond `stop`; the promise is left to itself then. */
export function unlessStopped<T>(promise: Promise<T>, stop: AbortSignal | undefined): Promise<T> {
  if (!stop) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(new Stopped());
    if (stop.aborted) onAbort();
    else stop.addEventListener('abort', onAbort);
    const settle = () => stop.removeEventListener('abort', onAbort);
    promise.then(
      (value) => {
        settle();
        resolve(value);
      },
      (error) => {
        settle();
        reject(error);
      },
    );
  });
}
