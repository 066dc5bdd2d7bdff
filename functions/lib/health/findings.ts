import type { Finding } from '../isolation/isolation.ts';
import type { Strategy } from '../tenant/tenant.ts';

/**
 * What a red check means. `isolation`: a tenant may reach another's data. `service`: tenants of a strategy are not
 * served. `none`: somebody should look, no tenant is at risk.
 */
export type Risk = 'isolation' | 'service' | 'none';

/** Everything that a run checks, and what it means when it is red. */
export const checks = {
  // Tried with the canaries' own logins, twice on one connection.
  own_rows: 'service',
  foreign_rows: 'isolation',
  foreign_writes: 'isolation',
  no_context: 'isolation',
  forged_context: 'isolation',
  expired_context: 'isolation',
  foreign_home: 'isolation',
  /** A real tool call through the MCP function. */
  data_path: 'service',
  /** Real calls of the public URL. It has an alarm of its own: the canary's way there may be what fails. */
  public_url: 'none',
  /** The public URL let in who has no right to, or took somebody for somebody else. */
  public_tokens: 'isolation',

  // Read from the system catalogs of every server and database.
  tables: 'isolation',
  roles: 'isolation',
  memberships: 'isolation',
  rights: 'isolation',
  functions: 'isolation',
  owners: 'isolation',
  databases: 'isolation',
  extensions: 'isolation',
  /** What a login has made of its own: large objects, default privileges. Its own rows may be in them, nobody else's. */
  leftovers: 'none',
  /** A login's own defaults: routing and time limits, never a wall. */
  role_settings: 'none',
  runtime: 'isolation',
  /** A login lacks a right on its own tables. Of one home it is that tenant's own trouble. */
  grants: 'service',
  /** A key that we did not give out signs contexts. */
  unknown_keys: 'isolation',
  /** Our key is not there: every call is refused. */
  signing_keys: 'service',
  replication: 'none',
  server: 'none',
  version: 'none',

  // The catalog beside what is really there.
  homes: 'none',
  orphans: 'none',
  secrets: 'none',
  instances: 'none',
  session_locks: 'none',
  operations: 'none',
  quarantined: 'none',
  canaries: 'none',
  /** A part of the run that could not be made. */
  unfinished: 'none',
} as const satisfies Record<string, Risk>;

export type Check = keyof typeof checks;

/** What is wrong, with the object's name: for operators, never for the public. */
export interface HealthFinding extends Omit<Finding, 'schema'> {
  readonly check: Check;
  readonly risk: Risk;
  /** Whose tenants it concerns; none: nobody's in particular. */
  readonly strategies: readonly Strategy[];
}

const longest = 500;

export function finding(
  check: Check,
  strategies: readonly Strategy[],
  object: string,
  text: string,
  remedy: string,
  risk: Risk = checks[check],
): HealthFinding {
  // A login's own settings may stand in it: not as long as it likes.
  const cut = (long: string) => (long.length > longest ? `${long.slice(0, longest)}…` : long);
  return { check, risk, strategies, object: cut(object), finding: cut(text), remedy: cut(remedy) };
}

/** `down` is also what a missing or old record means. */
export type HealthState = 'ok' | 'degraded' | 'broken' | 'down';

export function stateOf(findings: readonly Pick<HealthFinding, 'risk'>[]): HealthState {
  if (findings.some(({ risk }) => risk === 'isolation')) return 'broken';
  if (findings.some(({ risk }) => risk === 'service')) return 'down';
  return findings.length > 0 ? 'degraded' : 'ok';
}

/** Strategies in which one tenant may reach another. */
export const inDoubt = (findings: readonly HealthFinding[]): Set<Strategy> =>
  new Set(findings.filter(({ risk }) => risk === 'isolation').flatMap(({ strategies }) => strategies));
