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
      undo: ({ own }) => own.login,
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
      undo: ({ own }) => own.login,
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
    {
      name: "the fence's key, seen in pg_locks while the victim writes",
      sql: () => [
        `select pg_try_advisory_lock((l.classid::bigint << 32) | l.objid::bigint) from pg_locks l where l.locktype = 'advisory' and l.objsubid = 1 and l.pid <> pg_backend_pid()`,
      ],
      residual: {
        reason:
          'Advisory locks are open to every login of a database, and pg_locks names those that are held.',
        between: (attacker, victim) => attacker !== 'database' && victim !== 'database',
      },
    },
  ],
};
