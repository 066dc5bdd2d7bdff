import { setTimeout as sleep } from 'node:timers/promises';
import { TenantryError } from '../errors.ts';
import { ConnectFailure, StepFailure } from './failure.ts';
import { type CallLimits, type Endpoint, placeOf } from './types.ts';

/** How long a call comes back while the home is fenced or its lock is taken, ms. A move's freeze takes 2 to 6. */
const PATIENCE_MS = 3_000;
const FIRST_WAIT_MS = 20;
const LONGEST_WAIT_MS = 400;
/** The server's own answer to a statement that ran too long must arrive before our deadline: this much earlier, ms. */
export const ANSWER_MS = 250;

/** What one call may still try again. Only what is certain to have changed nothing is ever repeated. */
export class Retries {
  readonly #mode: CallLimits['mode'];
  readonly #deadline: number;
  #refreshNext = false;
  #refreshed = false;
  #reconnected = false;
  #waits = 0;
  #patientUntil: number | undefined;
  #endpoint: Endpoint | undefined;
  /** Whose credential was refused, the refetched one too. */
  #refusing: Endpoint | undefined;

  constructor({ mode, deadline }: CallLimits) {
    this.#mode = mode;
    this.#deadline = deadline;
  }

  /** Whether the next route must be a fresh one. */
  takeRefresh(): boolean {
    const refresh = this.#refreshNext;
    this.#refreshNext = false;
    return refresh;
  }

  /** @throws ConnectFailure when a fresh route leads to the login that has just been refused */
  heading(endpoint: Endpoint): void {
    if (this.#refusing && placeOf(this.#refusing) === placeOf(endpoint)) {
      throw new ConnectFailure(new Error('the login is refused with its newest credential'));
    }
    this.#endpoint = endpoint;
  }

  async worthwhile(error: unknown, stop: AbortSignal): Promise<boolean> {
    if (error instanceof ConnectFailure) {
      if (error.meaning === 'busy') return false;
      if (error.meaning === 'credential') this.#refusing = this.#endpoint;
      return this.#refresh();
    }
    // A secret that is gone or can't be read may be that of a home which the tenant has left, or of a tenant that has gone.
    if (error instanceof TenantryError) return error.code === 'internal' && this.#refresh();
    if (!(error instanceof StepFailure)) return false;
    // Another call's, left in a session that a pooler shares: `enter` ends it when it gets through, and what was on its way
    // then ends the statement behind it.
    if (error.meaning === 'timeout' && (error.atDoor || this.#isEarly(error))) return this.#wait(stop);
    if (error.atDoor) {
      if (error.meaning === 'stale' || error.meaning === 'unverified') return this.#refresh();
      if (error.meaning === 'fenced' || error.meaning === 'busy') return this.#wait(stop);
    }
    const gone = error.meaning === 'lost' || error.meaning === 'starting';
    const harmless = gone ? this.#mode === 'r' || !error.outcomeUnknown : error.poisoned;
    return harmless && this.#reconnect();
  }

  /** Before the call's own time was up. */
  #isEarly({ step }: StepFailure): boolean {
    return step === 'statement' && Date.now() < this.#deadline - 2 * ANSWER_MS;
  }

  #refresh(): boolean {
    if (this.#refreshed) return false;
    this.#refreshed = true;
    this.#refreshNext = true;
    return true;
  }

  #reconnect(): boolean {
    if (this.#reconnected) return false;
    this.#reconnected = true;
    return true;
  }

  /** Doubling, with full jitter, so that those who wait for one fence don't return together. */
  async #wait(stop: AbortSignal): Promise<boolean> {
    this.#patientUntil ??= Date.now() + PATIENCE_MS;
    if (Date.now() >= this.#patientUntil) return false;
    const longest = Math.min(FIRST_WAIT_MS * 2 ** this.#waits, LONGEST_WAIT_MS);
    this.#waits += 1;
    await sleep(5 + Math.random() * longest, undefined, { signal: stop }).catch(() => {});
    return true;
  }
}
