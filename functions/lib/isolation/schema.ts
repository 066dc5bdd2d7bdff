import { loginSecretName } from './credentials.ts';
import { asRole, audit, complete, endSessions, forgetHome, makeOwnHome } from './homes.ts';
import type { Isolation } from './isolation.ts';
import { rls } from './rls.ts';

/**
 * A schema of the tenant's own in the shared database. The wall is the grants of the home's own login: there is no row
 * security on its tables, which is the speed that a tenant gains by leaving the shared ones.
 */
export const schema: Isolation = {
  ownsTables: true,

  place: rls.place,

  // A home's id, not the tenant's: pg_roles and pg_namespace can be read by every login of the cluster.
  name: (homeId) => {
    const id = homeId.replaceAll('-', '');
    return { schema: `tenant_${id}`, login: `t_${id}` };
  },

  secret: (home, { clusterId }, loginsUse) =>
    loginsUse === 'secret' ? { name: loginSecretName(clusterId, home.login), password: true } : undefined,

  locate: rls.locate,

  provision: (connection, home, password) => makeOwnHome(connection, home, password, 'tenancy_schemas'),

  removeRows: async () => true,

  async deprovision(connection, home) {
    await forgetHome(connection, home);
    await endSessions(connection, home.login);
    await asRole(connection, 'tenancy_owner', () =>
      connection.query(`drop schema if exists ${home.schema} cascade`),
    );
    await connection.query(`
      do $$ begin
        if exists (select from pg_roles where rolname = '${home.login}') then
          -- Default privileges and large objects, which a role may make of itself, would keep it from being dropped.
          drop owned by ${home.login};
          drop role ${home.login};
        end if;
      end $$`);
  },
  removedFrom: rls.removedFrom,

  complete: (connection, homes, scope) => complete(connection, homes, scope, false),
  check: (connection, homes) => audit(connection, homes, false),
};
