import type { Strategy } from '../../../../functions/lib/tenant/tenant.ts';
import type { Theme } from '../attack.ts';

const sharedLogin = (attacker: Strategy, victim: Strategy) => attacker === 'rls' && victim === 'rls';

/**
 * What PostgreSQL grants to every role and no master of RDS's can take away. Each needs the tool's login and a statement
 * that the product does not send (see functions/lib/database/statement-guard.ts), or is named in SECURITY.md.
 */
export const residuals: Theme = {
  title: 'Known residuals',
  attacks: [
    {
      name: 'LOCK TABLE on a shared table',
      sql: ({ own, victim }) =>
        own.schema === victim.schema && own.login === victim.login
          ? [`lock table ${victim.relation} in access exclusive mode`]
          : [],
      residual: {
        reason:
          'Whoever may UPDATE or DELETE in a table may lock it in any mode; column grants know no DELETE.',
        between: sharedLogin,
      },
    },
    {
      name: "the login's own password",
      from: 'session',
      sql: () => ["alter role current_user password 'mine'"],
      residual: {
        reason:
          'A role may always change its own password. Logins that use IAM have none; RDS can restrict it (rds.restrict_password_commands).',
        between: sharedLogin,
      },
    },
    {
      name: "the login's own defaults, for every later session",
      from: 'session',
      sql: () => ["alter role current_user set local_preload_libraries = 'nonexistent'"],
      residual: {
        reason:
          'A role may always set its own defaults; what could change an answer, `enter` sets again, but a session may fail to open.',
        between: sharedLogin,
      },
    },
    {
      name: 'ends the sessions of its own login',
      sql: () => [
        'select pg_terminate_backend(pid) from pg_stat_activity where usename = session_user and pid <> pg_backend_pid()',
      ],
      residual: {
        reason:
          'Sessions of one role may end each other, and nobody but a superuser can revoke the function.',
        between: sharedLogin,
      },
    },
  ],
};

/** Shown one by one in test/attacks/residuals.test.ts: they take two sessions, or no statement of the victim's. */
export const otherResiduals = [
  {
    name: "the fence's advisory lock, held for ever",
    reason:
      'Advisory locks are open to every login of a database and pg_locks names the keys: writers of a neighbour are told to try again, readers go on.',
  },
  {
    name: 'statistics of a shared table',
    reason:
      'They are over all tenants: estimates tell how common a value is. No statement of a tool may be an EXPLAIN, but a SELECT shows which plan it got.',
  },
  {
    name: 'an index of a shared table that tenant_id does not lead',
    reason:
      'A range of it is walked through everybody’s entries: counts of pages tell how many there are, and which values pages begin with.',
  },
  {
    name: 'an index of a shared table without tenant_id',
    reason:
      'It is looked up in before the wall is asked, among all tenants’ values: whether one is there can be told. Migrations may leave it out in GIN, GiST and SP-GiST indexes alone.',
  },
  {
    name: 'locks that are taken before rights are asked for',
    reason:
      'CREATE RULE on a catalog’s table behind a lock of one’s own stops a database or server; nextval of a foreign table’s number keeps migrations from it. No statement of a tool’s may be CREATE.',
  },
  {
    name: 'the settings by which a session first read a PL/pgSQL function',
    reason: 'Constants in it stay as they were read: write dates as ISO with their zone, and `is null`.',
  },
  {
    name: 'names and sizes in the system catalogs',
    reason:
      'pg_class, pg_stat_user_tables and pg_roles are readable: how many homes there are and how many rows each has, by ids that mean nothing outside.',
  },
] as const;
