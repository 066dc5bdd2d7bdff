/** As PostgreSQL names them: an identifier that we quote all the same. */
export const extensionName = /^[a-z][a-z0-9_-]{0,62}$/;

/** What reads or runs something outside the database, and so behind every wall: never installed for tenants. */
export const reachesOut: readonly string[] = [
  'dblink',
  'postgres_fdw',
  'file_fdw',
  'adminpack',
  'pageinspect',
  'lo',
  'plpython3u',
  'plperl',
  'plperlu',
  'pltcl',
  'pltclu',
  'aws_s3',
  'aws_lambda',
  'aws_commons',
  'pg_cron',
  'log_fdw',
  'tds_fdw',
  'oracle_fdw',
  'mysql_fdw',
  'pg_buffercache',
  'pgrowlocks',
  'pg_visibility',
  'pg_walinspect',
  'pg_surgery',
];
