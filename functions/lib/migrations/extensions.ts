/** As PostgreSQL names them: an identifier that we quote all the same. */
export const extensionName = /^[a-z][a-z0-9_-]{0,62}$/;

/**
 * Never installed for tenants: what reads or runs something outside the database; and what passes something on to other tenants
 * past the walls: in a session that one of them gets next, by notifications, or by what it keeps of everybody's statements.
 */
export const neverInstalled: readonly string[] = [
  // Other servers, the server's files, other sessions.
  'dblink',
  'postgres_fdw',
  'file_fdw',
  'log_fdw',
  'tds_fdw',
  'oracle_fdw',
  'mysql_fdw',
  'aws_s3',
  'aws_lambda',
  'aws_commons',
  'aws_ml',
  'http',
  'pg_net',
  'pglogical',
  'pgactive',
  'pg_transport',
  'pg_cron',
  'pg_background',
  'pg_tle',
  'adminpack',
  'lo',
  'orafce',
  'pg_proctab',
  'pldbgapi',
  // Pages, whosever rows are on them.
  'pageinspect',
  'pg_buffercache',
  'pgrowlocks',
  'pg_visibility',
  'pg_walinspect',
  'pg_surgery',
  // Languages keep variables as long as their session; what their functions do is not audited.
  'plpython3u',
  'plperl',
  'plperlu',
  'pltcl',
  'pltclu',
  'plv8',
  'plcoffee',
  'plls',
  'plrust',
  'plr',
  'pljava',
  'pllua',
  'plluau',
  'plsh',
  'pg_variables',
  // Changed keys as notifications, values of everybody's statements.
  'tcn',
  'pg_qualstats',
  'pg_stat_monitor',
];
