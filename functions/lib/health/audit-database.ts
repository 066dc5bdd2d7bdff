import type { ControlConnection } from '../database/connect.ts';
import type { Finding } from '../isolation/isolation.ts';
import { neverInstalled } from '../migrations/extensions.ts';
import { type AuditRow, dataRoles, mostRows } from './audit-server.ts';

/** One schema of this database that holds tenants' tables, and the login it is for. */
export interface HomeSchema {
  readonly schema: string;
  readonly login: string;
}

/** What tenants' logins may execute. `capture` runs as a trigger only. */
const entrances = ['admit(text)', 'enter(text)', 'open_home(text)', 'verify(text)', 'current_tenant()'].map(
  (name) => `tenancy.${name}`,
);
const definers = [
  ...entrances.slice(2),
  ...['maintained_tenants()', 'tenants_in(name)', 'capture()'].map((name) => `tenancy.${name}`),
];
const catalogEntrances = ['catalog.resolve(text,text)', 'catalog.health()'];

/**
 * A database beyond the tables of its homes: everything in it that a tenant's login could use. Of a home's own tables
 * speaks `tenancy.audit_homes`. `homes`: the schemas that hold tenants here.
 */
export async function auditDatabase(
  connection: ControlConnection,
  homes: readonly HomeSchema[],
): Promise<AuditRow[]> {
  const { rows } = await connection.query<AuditRow>(databaseAudit, [
    homes.map(({ schema }) => schema),
    homes.map(({ login }) => login),
    [...entrances, ...catalogEntrances],
    [...definers, ...catalogEntrances],
    neverInstalled,
  ]);
  return rows;
}

/**
 * What logins lack of what a migration has given them: everything on their home's tables, reading of those that are every
 * tenant's (they have no tenant_id), and a way into the schema.
 */
export async function auditGrants(
  connection: ControlConnection,
  homes: readonly HomeSchema[],
): Promise<Finding[]> {
  const { rows } = await connection.query<Finding>(grantsAudit, [
    homes.map(({ schema }) => schema),
    homes.map(({ login }) => login),
  ]);
  return rows;
}

// A table of the home is looked up by its dependency on the schema, as below.
const grantsAudit = `
with home as materialized (
  select h.schema, r.oid as role, r.rolname as login, n.oid as namespace from unnest($1::name[], $2::name[]) h(schema, login)
    join pg_catalog.pg_namespace n on n.nspname = h.schema join pg_catalog.pg_roles r on r.rolname = h.login)
select h.schema, format('schema %s', h.schema) as object, format('USAGE is not granted to %s: its calls fail', h.login) as finding,
       format('grant usage on schema %I to %I', h.schema, h.login) as remedy
  from home h where not has_schema_privilege(h.role, h.namespace, 'usage')
union all
select h.schema, c.oid::regclass::text, format('%s is not granted to %s: its calls fail', string_agg(p.privilege, ', ' order by p.privilege), h.login),
       format('grant %s on %s to %I', string_agg(p.privilege, ', ' order by p.privilege), c.oid::regclass, h.login)
  from home h join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_namespace'::regclass and d.refobjid = h.namespace and d.classid = 'pg_catalog.pg_class'::regclass
  join pg_catalog.pg_class c on c.oid = d.objid and c.relkind in ('r', 'p') and c.relname <> '_migrations' and not c.relispartition
 cross join unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) p(privilege)
 where not has_table_privilege(h.role, c.oid, p.privilege)
   and (p.privilege = 'SELECT' or exists (select from pg_catalog.pg_attribute t where t.attrelid = c.oid and t.attname = 'tenant_id' and not t.attisdropped))
 group by h.schema, h.login, c.oid`;

/** Of a function that tenants' logins may call: who may, by its access list or by PostgreSQL's default (everybody). */
const executors = "aclexplode(coalesce(p.proacl, acldefault('f', p.proowner)))";
const mayTenants = '(a.grantee = 0 or a.grantee in (select oid from data))';
/** In the product's own schemas: anybody but those that its migrations name, and on what signs nobody at all. */
const mayStrangers = (object: string, owner: string) =>
  `(s.nspname in ('tenancy', 'catalog') and a.grantee <> ${owner}
     and (${object} or a.grantee <> case s.nspname when 'tenancy' then 'tenancy_owner'::regrole else 'tenancy_provisioner'::regrole end))`;
const signs = `s.nspname = 'tenancy' and c.relname in ('keys', 'pass_secret_1', 'pass_secret_2')`;
/** What an extension brought along is judged as an extension. */
const notExtension = (catalog: string, oid: string) =>
  `not exists (select from pg_catalog.pg_depend e where e.classid = 'pg_catalog.${catalog}'::regclass and e.objid = ${oid} and e.deptype = 'e')`;

const systemSchemas = `'pg_catalog'::regnamespace, 'information_schema'::regnamespace`;

const databaseAudit = `
with data as materialized (select oid, rolname from pg_catalog.pg_roles where rolname ~ ${dataRoles}),
homes as materialized (
  select n.oid as namespace, h.schema, h.login from unnest($1::text[], $2::text[]) h(schema, login)
    left join pg_catalog.pg_namespace n on n.nspname = h.schema),
schemas as materialized (
  select n.*, n.oid in (select namespace from homes) or n.nspname = 'shared' as is_home from pg_catalog.pg_namespace n
   where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'),
owned as (
  select o.* from pg_catalog.pg_shdepend o
   where o.refclassid = 'pg_catalog.pg_authid'::regclass and o.deptype = 'o'
     and o.dbid = (select oid from pg_catalog.pg_database where datname = current_database())),
-- By way of the dependencies on their schema: pg_class has no index on it, and homes have most of its rows.
outside as materialized (
  select c.* from schemas s join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_namespace'::regclass and d.refobjid = s.oid
      and d.classid = 'pg_catalog.pg_class'::regclass
    join pg_catalog.pg_class c on c.oid = d.objid
   where not s.is_home and ${notExtension('pg_class', 'c.oid')})

select 'rights' as check, g.rolname as login, format('schema %s', s.nspname) as object,
       format('%s is granted to %s', a.privilege_type, coalesce(w.rolname, 'PUBLIC')) as finding,
       format('revoke all on schema %I from %s', s.nspname, coalesce(quote_ident(w.rolname), 'public')) as remedy
  from schemas s cross join aclexplode(s.nspacl) a
  left join data g on g.oid = a.grantee
  left join pg_catalog.pg_roles w on w.oid = a.grantee
  left join homes h on h.namespace = s.oid and h.login = g.rolname
 where a.grantee <> s.nspowner and (a.grantee = 0 or g.oid is not null or s.is_home or s.nspname in ('tenancy', 'catalog'))
   -- Everybody has no name, and what is compared with none is neither true nor false.
   and (a.is_grantable or a.privilege_type <> 'USAGE' or not (h.login is not null
     or s.nspname in ('tenancy', 'extensions') and coalesce(g.rolname, '') in ('tenancy_app', 'tenancy_tenants')
     or s.nspname = 'shared' and coalesce(g.rolname, '') = 'tenancy_app'
     or s.nspname = 'catalog' and coalesce(g.rolname, '') = 'tenancy_catalog_reader'))
   and not (coalesce(w.rolname, '') = 'tenancy_provisioner' or s.nspname in ('extensions', 'tenancy') and coalesce(w.rolname, '') = 'tenancy_owner')
union all
select 'owners', h.login, format('schema %s', s.nspname), format('is owned by %s', pg_get_userbyid(s.nspowner)), format('alter schema %I owner to tenancy_owner', s.nspname)
  from schemas s left join homes h on h.namespace = s.oid where s.is_home and pg_get_userbyid(s.nspowner) <> 'tenancy_owner'
union all
select 'owners', null, format('schema %s', s.nspname), format('is owned by %s', pg_get_userbyid(s.nspowner)), format('alter schema %I owner to tenancy_keeper', s.nspname)
  from schemas s where s.nspname in ('tenancy', 'catalog') and pg_get_userbyid(s.nspowner) <> 'tenancy_keeper'
union all
select 'rights', g.rolname, c.oid::regclass::text, format('%s is granted to %s', a.privilege_type, coalesce(w.rolname, 'PUBLIC')),
       format('revoke all on %s from %s', c.oid::regclass, coalesce(quote_ident(w.rolname), 'public'))
  from outside c join schemas s on s.oid = c.relnamespace cross join aclexplode(c.relacl) a left join data g on g.oid = a.grantee left join pg_catalog.pg_roles w on w.oid = a.grantee
 where ${mayTenants} or ${mayStrangers(signs, 'c.relowner')}
union all
select 'rights', g.rolname, format('%s.%s', c.oid::regclass, t.attname), format('%s is granted to %s', a.privilege_type, coalesce(w.rolname, 'PUBLIC')),
       format('revoke all (%I) on %s from %s', t.attname, c.oid::regclass, coalesce(quote_ident(w.rolname), 'public'))
  from outside c join schemas s on s.oid = c.relnamespace join pg_catalog.pg_attribute t on t.attrelid = c.oid cross join aclexplode(t.attacl) a left join data g on g.oid = a.grantee left join pg_catalog.pg_roles w on w.oid = a.grantee
 where ${mayTenants} or ${mayStrangers(signs, 'c.relowner')}
union all
select distinct 'owners', null, c.oid::regclass::text, format('is owned by %s', pg_get_userbyid(c.relowner)), format('alter table %s owner to tenancy_keeper', c.oid::regclass)
  from outside c join schemas s on s.oid = c.relnamespace where s.nspname in ('tenancy', 'catalog') and pg_get_userbyid(c.relowner) <> 'tenancy_keeper'
union all
-- The server's own objects: more than PostgreSQL itself grants on them.
select 'rights', g.rolname, p.oid::regprocedure::text, format('EXECUTE is granted to %s', coalesce(g.rolname, 'PUBLIC')),
       format('revoke execute on function %s from %s', p.oid::regprocedure, coalesce(quote_ident(g.rolname), 'public'))
  from pg_catalog.pg_proc p cross join aclexplode(p.proacl) a left join data g on g.oid = a.grantee
  left join pg_catalog.pg_init_privs i on i.classoid = 'pg_catalog.pg_proc'::regclass and i.objoid = p.oid and i.objsubid = 0
 where p.oid < 16384 and p.pronamespace = 'pg_catalog'::regnamespace and ${mayTenants}
   and not exists (select from aclexplode(coalesce(i.initprivs, acldefault('f', p.proowner))) b where b.grantee = a.grantee)
union all
select 'rights', g.rolname, c.oid::regclass::text, format('%s is granted to %s', a.privilege_type, coalesce(g.rolname, 'PUBLIC')),
       format('revoke all on %s from %s', c.oid::regclass, coalesce(quote_ident(g.rolname), 'public'))
  from pg_catalog.pg_class c cross join aclexplode(c.relacl) a left join data g on g.oid = a.grantee
  left join pg_catalog.pg_init_privs i on i.classoid = 'pg_catalog.pg_class'::regclass and i.objoid = c.oid and i.objsubid = 0
 where c.oid < 16384 and c.relnamespace = 'pg_catalog'::regnamespace and ${mayTenants}
   and not exists (select from aclexplode(coalesce(i.initprivs, acldefault('r', c.relowner))) b where b.grantee = a.grantee and b.privilege_type = a.privilege_type)
union all
select distinct 'functions', null::name, p.oid::regprocedure::text, 'runs with the rights of ' || pg_get_userbyid(p.proowner) || ' and can be reached by tenants',
       format('drop it, or alter function %s security invoker', p.oid::regprocedure)
  from pg_catalog.pg_proc p join schemas s on s.oid = p.pronamespace
 where p.prosecdef and ${notExtension('pg_proc', 'p.oid')} and p.oid::regprocedure::text <> all ($4)
   -- Of those in a home, with tenancy_owner's rights, tenancy.audit_homes tells.
   and (not s.is_home or pg_get_userbyid(p.proowner) <> 'tenancy_owner')
   and (exists (select from ${executors} a where ${mayTenants}) or exists (select from pg_catalog.pg_trigger t where t.tgfoid = p.oid and not t.tgisinternal))
union all
-- Beside the server's own, where every path begins. AWS adds to those.
select 'functions', null, p.oid::regprocedure::text, 'stands among the functions of the server, and is none', format('drop function %s', p.oid::regprocedure)
  from pg_catalog.pg_proc p where p.oid >= 16384 and p.pronamespace in (${systemSchemas}) and pg_get_userbyid(p.proowner) <> 'rdsadmin' and ${notExtension('pg_proc', 'p.oid')}
union all
select 'rights', null, c.oid::regclass::text, 'stands among the tables of the server, and is none', format('drop it: %s', c.oid::regclass)
  from pg_catalog.pg_class c where c.oid >= 16384 and c.relnamespace in (${systemSchemas}) and pg_get_userbyid(c.relowner) <> 'rdsadmin' and ${notExtension('pg_class', 'c.oid')}
union all
select 'functions', g.rolname, p.oid::regprocedure::text, format('EXECUTE is granted to %s', coalesce(w.rolname, 'PUBLIC')),
       format('revoke execute on function %s from %s', p.oid::regprocedure, coalesce(quote_ident(w.rolname), 'public'))
  from pg_catalog.pg_proc p join schemas s on s.oid = p.pronamespace cross join ${executors} a left join data g on g.oid = a.grantee left join pg_catalog.pg_roles w on w.oid = a.grantee
 where s.nspname in ('tenancy', 'catalog') and (${mayTenants} and p.oid::regprocedure::text <> all ($3)
    or g.oid is null and ${mayStrangers('false', 'p.proowner')})
union all
select 'functions', null, p.oid::regprocedure::text, 'is marked LEAKPROOF: it sees rows before row security does', format('alter function %s not leakproof', p.oid::regprocedure)
  from pg_catalog.pg_proc p where p.proleakproof and p.oid >= 16384 and ${notExtension('pg_proc', 'p.oid')}
union all
(select 'owners', r.rolname, pg_describe_object(o.classid, o.objid, o.objsubid), format('is owned by %s', r.rolname), format('reassign owned by %I to tenancy_owner', r.rolname)
  from data r join owned o on o.refobjid = r.oid and o.classid not in ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_default_acl'::regclass) limit 100)
union all
select 'leftovers', r.rolname, format('role %s', r.rolname), format('has %s %s of its own', count(*), case o.classid when 'pg_catalog.pg_largeobject'::regclass then 'large objects' else 'default privileges' end),
       'find out which tool made them: tools must not'
  from data r join owned o on o.refobjid = r.oid and o.classid in ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_default_acl'::regclass)
 group by r.rolname, o.classid
union all
select 'rights', g.rolname, format('default privileges of %s', pg_get_userbyid(d.defaclrole)), format('grant %s to %s', a.privilege_type, coalesce(g.rolname, 'PUBLIC')),
       'alter default privileges: revoke it'
  from pg_catalog.pg_default_acl d cross join aclexplode(d.defaclacl) a left join data g on g.oid = a.grantee
 where a.grantee <> d.defaclrole and d.defaclrole not in (select oid from data) and ${mayTenants}
union all
select 'databases', g.rolname, format('database %s', b.datname), format('%s is granted to %s', a.privilege_type, g.rolname), format('revoke all on database %I from %I', b.datname, g.rolname)
  from pg_catalog.pg_database b cross join aclexplode(b.datacl) a join data g on g.oid = a.grantee
 where b.datname = current_database() and g.rolname ~ '^t_' and not exists (select from homes h where h.login = g.rolname)
union all
select 'extensions', null, format('extension %s', extname), 'leads past the walls between tenants', format('drop extension %I', extname)
  from pg_catalog.pg_extension where extname = any ($5)
union all
select 'extensions', null, format('foreign server %s', srvname), 'leads out of the database', format('drop server %I cascade', srvname) from pg_catalog.pg_foreign_server
union all
select 'replication', null, format('publication %s', pubname), 'hands out changes of tables', format('drop publication %I, if it is not yours', pubname) from pg_catalog.pg_publication
union all
select 'replication', null, format('subscription %s', subname), 'brings in changes of tables', format('drop subscription %I, if it is not yours', subname)
  from pg_catalog.pg_subscription where subdbid = (select oid from pg_catalog.pg_database where datname = current_database())
union all
select 'functions', null, format('event trigger %s', evtname), format('runs with the rights of whoever changes a table, also ours: made by %s', pg_get_userbyid(evtowner)), format('drop event trigger %I', evtname)
  from pg_catalog.pg_event_trigger v where pg_get_userbyid(evtowner) <> 'rdsadmin' and ${notExtension('pg_event_trigger', 'v.oid')}
limit ${mostRows}`;
