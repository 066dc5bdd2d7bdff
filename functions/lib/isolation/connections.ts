/** Connections that the login of one home may hold at once. */
export const connectionLimit = 20;

/**
 * SQL: how many connections of a server are in use. Of other logins' sessions we see little, their backend_type not
 * either; processes of the server's own have no user.
 */
export const connectionsInUse =
  '(select count(*)::int from pg_stat_activity where datid is not null and usesysid is not null)';
