import { tenantSecretName } from './credentials.ts';
import { dropDatabase, makeOwnHome } from './homes.ts';
import type { Isolation } from './isolation.ts';
import { schema } from './schema.ts';

/**
 * A database of the tenant's own, on its own instance or in a shared cluster. Within it everything is as in a schema
 * home; where it is, and its password, its secret says.
 */
export const database: Isolation = {
  ownsTables: true,

  place: (placement) => (placement === 'dedicated' ? 'instance' : 'database'),

  name: (homeId) => ({ schema: 'main', login: schema.name(homeId).login }),

  secret: (home, { kind }, loginsUse) => ({
    name: tenantSecretName(home.tenant),
    password: loginsUse === 'secret' || kind === 'dedicated',
  }),

  async locate(route, credentials, tls, fresh) {
    const secret = await credentials.tenantDatabase(route.tenant, fresh);
    // While a move changes over from one database to another, the secret may speak of the one that this route does not
    // mean: then the route says where. The password is that of every database of the tenant that has one, and where logins
    // use IAM, only an instance's has: its cluster is known by the home's id.
    const hasPassword = credentials.use === 'secret' || route.clusterId === route.homeId;
    const { host, port, dbname, username } =
      secret.username === route.login
        ? secret
        : { host: route.host, port: route.port, dbname: route.database, username: route.login };
    return {
      host,
      port,
      database: dbname,
      login: username,
      password: async (fresh) =>
        (hasPassword ? (await credentials.tenantDatabase(route.tenant, fresh)).password : undefined) ??
        credentials.token({ host, port, login: username }),
      tls,
    };
  },

  provision: (connection, home, password) => makeOwnHome(connection, home, password, 'its own database'),
  removeRows: schema.removeRows,
  deprovision: (connection, { database, login }) => dropDatabase(connection, database, login),
  removedFrom: () => 'postgres',
  complete: schema.complete,
  check: schema.check,
};
