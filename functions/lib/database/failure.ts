import pg from 'pg';
import { type Meaning, meaningOf } from './sqlstate.ts';

/** The four steps of a call; every one of them can be where it fails. */
export type Step = 'begin' | 'enter' | 'statement' | 'commit';

/** What came back instead of a result. It stays inside this folder: callers get errors of `lib/errors.ts`. */
export class StepFailure extends Error {
  readonly step: Step;
  readonly meaning: Meaning;
  readonly sqlstate: string | undefined;
  readonly constraint: string | undefined;
  /** The connection went away after COMMIT had been sent: nobody here knows what became of it. */
  readonly outcomeUnknown: boolean;

  constructor(step: Step, cause: unknown, commitSent: boolean) {
    super(`failed at ${step}`, { cause });
    const answer = cause instanceof pg.DatabaseError ? cause : undefined;
    this.step = step;
    this.sqlstate = answer?.code;
    this.constraint = answer?.constraint;
    this.meaning = meaningOf(this.sqlstate);
    // A backend answers in order, and here it has said itself that it ended before COMMIT had its turn. Of a pooler's word, or
    // none, that can't be said. `routine` only PostgreSQL itself tells.
    const endedBefore = step !== 'commit' && answer?.routine === 'ProcessInterrupts';
    this.outcomeUnknown =
      commitSent && !endedBefore && (this.meaning === 'lost' || this.meaning === 'starting');
  }

  /** It failed before the tool's statement had its turn. */
  get atDoor(): boolean {
    return this.step === 'begin' || this.step === 'enter';
  }

  /**
   * The session is not as a new one would be. At the door that is whatever we can't explain: an earlier
   * statement may have left settings behind that make enter itself fail, a statement_timeout of 1 ms for one.
   */
  get poisoned(): boolean {
    return (
      this.meaning === 'poisoned' || (this.atDoor && (this.meaning === 'query' || this.meaning === 'timeout'))
    );
  }
}

/** No connection could be made; nothing was executed. */
export class ConnectFailure extends Error {
  readonly meaning: Meaning;

  constructor(cause: unknown) {
    super('no connection', { cause });
    this.meaning = meaningOf(cause instanceof pg.DatabaseError ? cause.code : undefined);
  }
}

/** No connection, or none any more: 57P0x when the server ends it, no SQLSTATE when the socket does. */
export function isLost(error: unknown): boolean {
  if (error instanceof ConnectFailure) return true;
  const { code, message } = error as { code?: string; message?: string };
  return (
    /^(57P0\d|08\w{3}|ECONN\w+|EPIPE)$/.test(code ?? '') ||
    /^(Connection terminated|Client has encountered)/.test(message ?? '')
  );
}

/** What an operator does about a server that has run out of disk, memory or the like; undefined: it has not. */
export function remedyOfFull(code: unknown): string | undefined {
  if (code === '53100') return 'make room on that server’s disk';
  return /^53\w{3}$/.test(String(code)) ? 'give that server more of what its log says' : undefined;
}

/** PostgreSQL 17 makes and analyses indexes, and fills materialized views, with a path of its own. */
export const pathOfItsOwn =
  'where an index or a materialized view is made, a function finds PostgreSQL’s own names only: declare it `set search_path from current`, or write its body as `return …`, whose names are looked up when the function is made';
/** A function is called that does not find what it names. */
export const isPathOfItsOwn = ({ code, where }: { code?: string; where?: string }): boolean =>
  ['42883', '42704', '42P01'].includes(code ?? '') &&
  /^(SQL|PL\/pgSQL) function (?!tenancy\.)/.test(where ?? '');

/** The call's signal or deadline ended the wait. */
export class Stopped extends Error {
  /** COMMIT was under way: nobody here knows what became of it. */
  readonly outcomeUnknown: boolean;

  constructor(commitSent = false) {
    super('stopped');
    this.outcomeUnknown = commitSent;
  }
}
