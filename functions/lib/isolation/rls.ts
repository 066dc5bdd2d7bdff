import { audit, complete, forgetHome, registerHome } from './homes.ts';
import type { Isolation } from './isolation.ts';
import { deleteRows } from './rows.ts';

/**
 * Shared tables. The wall is forced row-level security over the signed context, so that one login and one pool serve
 * every such tenant.
 */
export const rls: Isolation = {
  ownsTables: false,

  place: () => 'shared',

  name: () => ({ schema: 'shared', login: 'tenancy_app' }),

  secret: () => undefined,

  async locate(route, credentials, tls) {
    return {
      host: route.host,
      port: route.port,
      database: route.database,
      login: route.login,
      password: (fresh) => credentials.password(route, fresh),
      tls,
    };
  },

  async provision(connection, home) {
    await registerHome(connection, home, 'provisioning');
  },

  removeRows: deleteRows,

  deprovision: forgetHome,
  removedFrom: ({ database }) => database,

  complete: (connection, homes, scope) => complete(connection, homes, scope, true),
  check: (connection, homes) => audit(connection, homes, true),
};
