import type { ApiKeyClaims } from '../auth/api-key.ts';
import type { KnownInstance } from '../aws/rds.ts';
import type { Secrets } from '../aws/secrets.ts';
import type { ControlConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import type { MasterKeys } from '../isolation/context.ts';
import type { ControlPlane } from '../lifecycle/control-plane.ts';
import type { KeySecrets } from '../lifecycle/keys.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import type { ConnectionFacts } from './budget.ts';
import { finding, type HealthFinding } from './findings.ts';
import { type Tally, tooOften } from './in-a-row.ts';
import type { Picture } from './picture.ts';
import type { PublicAnswer } from './public-url.ts';
import type { Next } from './record.ts';

/** What a run works with; built once by the canary's handler. */
export interface Watch {
  /** Without the keys: they are part of what is watched, and read anew by every run. */
  readonly plane: Omit<ControlPlane, 'keys'>;
  readonly secrets: Pick<Secrets, 'list' | 'isThere'>;
  /** As this deployment calls them. */
  readonly keySecrets: KeySecrets;
  /** @throws TenantryError when they can't be read */
  readKeys(): Promise<MasterKeys>;
  /** The text of the secret with the pair that signs API keys; undefined when it is gone. */
  readSigningKeys(): Promise<string | undefined>;
  /** The dedicated instances of the account, running or not. */
  instances(): Promise<KnownInstance[]>;
  /** What the deployment's connection budget counts with; undefined: it has none. */
  readonly connectionFacts?: ConnectionFacts | undefined;
  /** A real tool call through the tenant's data path. @throws when it does not hold */
  probe(tenant: TenantId): Promise<void>;
  /** The canaries' API keys for the public URL, kept as text. */
  readonly publicKeys: {
    /** The public URL. */
    readonly url: string;
    read(): Promise<string | undefined>;
    write(text: string): Promise<void>;
    mint(claims: Pick<ApiKeyClaims, 'tenant' | 'keyId' | 'scopes' | 'expires'>): Promise<string>;
  };
  /** Calls the public URL with them, from outside. */
  askPublicUrl(): Promise<PublicAnswer>;
  /** Lets an operation of kind `provision` run. */
  provision(operationId: string): Promise<void>;
}

/** One run, as its parts see it. */
export interface Run {
  readonly watch: Watch;
  /** The parts' statements take turns on it. */
  readonly catalog: ControlConnection;
  readonly picture: Picture;
  /** undefined: they can't be read. */
  readonly keys: MasterKeys | undefined;
  /** What the run before has left. */
  readonly known: Next;
  readonly tally: Tally;
  /** When it began, Unix time, ms. */
  readonly now: number;
  /** Whether nothing that can wait shall be begun any more. */
  readonly isLate: () => boolean;
}

/** What a part of a run shows, and under which name the runs are counted that could not make it. */
export interface Proof {
  readonly strategies: readonly Strategy[];
  readonly name: string;
  readonly tally: Tally;
  /** Nobody but its tenant is there: while it takes no connection at all, nobody gets in either. */
  readonly isAlone?: boolean;
}

/**
 * What part of a run found; a part that fails or takes too long leaves that as its finding. `proof`: it shows that
 * strategies keep tenants apart. When it fails for no reason of the moment, or in several runs in a row, they are in doubt:
 * whoever can make the audit fail could hide behind that.
 */
export async function part(
  object: string,
  work: () => Promise<HealthFinding[]>,
  { ms = 15_000, proof }: { ms?: number; proof?: Proof | undefined } = {},
): Promise<HealthFinding[]> {
  try {
    const findings = await within(() => onceMore(work), ms);
    proof?.tally.note(proof.name, true);
    return findings;
  } catch (error) {
    // Without a severity it is nobody's answer: a socket, or a credential that was not to be read.
    const { code, severity } = error as { code?: string; severity?: string };
    const isMoment = severity === undefined || ofTheMoment.test(code!);
    const isAway = proof?.isAlone && error instanceof ConnectFailure && error.meaning === 'lost';
    const isProof = proof !== undefined && proof.strategies.length > 0 && !isAway;
    const times = isProof ? proof.tally.note(proof.name, false) : 0;
    const often = times >= tooOften ? ` (${times} runs in a row)` : '';
    return [
      finding(
        'unfinished',
        proof?.strategies ?? [],
        object,
        `could not be checked${often}: ${reasonOf(error)}`,
        'find out why; the next run tries it again',
        isProof && (!isMoment || times >= tooOften) ? 'isolation' : 'none',
      ),
    ];
  }
}

/** SQLSTATEs of a server that is away, full, shutting down or in another's way. */
const ofTheMoment = /^(08|40|53|57|55P03|XX000)/;

/** @throws Error when it takes longer; the work is left to itself then */
export async function within<T>(work: () => Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1_000} s`)), ms);
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A server that was busy for the moment of a handshake is no news. */
const onceMore = <T>(work: () => Promise<T>): Promise<T> =>
  work().catch((error) => {
    if (error instanceof ConnectFailure) return work();
    throw error;
  });

/** For operators; `ConnectFailure` keeps PostgreSQL's own words in its cause. */
export function reasonOf(error: unknown): string {
  const { message, code } = (error instanceof ConnectFailure ? error.cause : error) as {
    message?: string;
    code?: string;
  };
  return [message ?? String(error), code && `(${code})`].filter(Boolean).join(' ').slice(0, 300);
}

/** `work` on each item, `width` of them at a time, in their order. */
export async function inParallel<T, R>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const queue = items.entries();
  const worker = async () => {
    for (const [index, item] of queue) results[index] = await work(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
  return results;
}

/** One connection for parts that run side by side: their statements take turns. None of them may open a transaction. */
export function takingTurns(connection: ControlConnection): ControlConnection {
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = turn.then(work);
    turn = result.catch(() => {});
    return result;
  };
  return {
    query: (text, values) => inTurn(() => connection.query(text, values)) as never,
    copyTo: (text, into) => inTurn(() => connection.copyTo(text, into)),
    copyFrom: (text, from) => inTurn(() => connection.copyFrom(text, from)),
  };
}
