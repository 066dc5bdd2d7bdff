import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';

/** What the attacker is given: all that is no secret of the victim's, which is more than a real one would know. */
export interface Aim {
  /** The attacker's own. */
  readonly own: {
    readonly schema: string;
    readonly login: string;
    readonly tenant: string;
    readonly relation: string;
  };
  /** The victim's. `relation` is the table attacked, quoted and with its schema; `table` its bare name, quoted. */
  readonly victim: {
    readonly schema: string;
    readonly login: string;
    readonly tenant: string;
    readonly database: string;
    readonly relation: string;
    readonly table: string;
    /** The columns that can be written, quoted. */
    readonly columns: readonly string[];
    readonly hasRows: boolean;
    /** Its unique keys: their columns but tenant_id, quoted. */
    readonly keys: readonly (readonly string[])[];
    /** One of the victim's rows as a JSON literal of SQL, for probing whether it is there. */
    readonly row: string;
  };
  /** The attacker's own context, valid, as `current_setting` shows it. */
  readonly context: string;
  /** What it can make of it without a key, to name the victim or to last longer. */
  readonly forgeries: readonly string[];
  /** Valid contexts of its own that it must not get far with: another epoch, mode, purpose, database, time. */
  readonly misfits: readonly string[];
  /** A valid context of the victim's, as if it had been stolen. Only where the logins differ. */
  readonly stolen?: string;
}

/** How the statements reach the server. `product` is a tool's own way; the other two have the tool's login and nothing in between. */
export const ways = ['simple', 'extended', 'product'] as const;
export type Way = (typeof ways)[number];

/** What a wall of PostgreSQL's own making can't keep, where, and why. Tried all the same: the day it holds, the entry goes. */
export interface Residual {
  readonly reason: string;
  readonly between: (attacker: Strategy, victim: Strategy) => boolean;
}

export interface Attack {
  readonly name: string;
  /** None: it makes no sense between these two. */
  readonly sql: (aim: Aim) => readonly string[];
  /** `call`: in a transaction entered as the attacker's own tenant, as tool SQL is. `session`: outside of any. */
  readonly from?: 'call' | 'session';
  /** Beside the victim's values: what in an answer or error gives something away. */
  readonly betrays?: (aim: Aim) => RegExp;
  readonly residual?: Residual;
  /** While it is tried nothing else is: its locks would keep victims of others from their rows, and be taken for the others' doing. */
  readonly alone?: true;
}

export interface Theme {
  readonly title: string;
  /** About each table's own rights: tried on every table of every strategy. The others: on every table next door. */
  readonly aboutTables?: true;
  /** Then it is tried on views too. */
  readonly onlyReads?: true;
  readonly attacks: readonly Attack[];
}
