import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlConnection } from '../database/connect.ts';
import { catalogDatabase } from '../isolation/catalog-reader.ts';
import { connectionLimit } from '../isolation/connections.ts';
import { tenantsDatabase } from '../migrations/install.ts';
import type { Check } from './findings.ts';

/** One row of an audit; `login` says whose wall it is, null: everybody's in that database or on that server. */
export interface AuditRow {
  readonly check: Check;
  readonly login: string | null;
  readonly object: string;
  readonly finding: string;
  readonly remedy: string;
}

/** Roles that tenants' statements run as, or that such a role belongs to. */
export const dataRoles = `'^(tenancy_(app|tenants|schemas|catalog_reader)|t_[0-9a-f]{32})$'`;
const ourRoles = `'^(tenancy_[a-z_]+|t_[0-9a-f]{32})$'`;

/** What lets a role read or write past every grant, run programs, or copy a whole server. */
const powers = `'{pg_read_all_data,pg_write_all_data,pg_read_server_files,pg_write_server_files,pg_execute_server_program,pg_create_subscription,rds_superuser,rds_replication,tenancy_provisioner}'::name[]`;
/** AWS's own. Its groups log in nowhere; a member that is not AWS's is told by itself. */
const ofTheServer = (role: string) =>
  `(${role}.oid = 10 or ${role}.rolname ~ '^(pg_.*|rdsadmin|rdsrepladmin|rdstopmgr|rdsproxyadmin|rdswriteforwarduser)$' or ${role}.rolname ~ '^rds_' and not ${role}.rolcanlogin)`;

/** Parameters that change what a statement finds, or what it is checked by. */
const misleading = `'^(search_path|row_security|role|session_authorization|session_replication_role|(session|local)_preload_libraries|tenancy\\..*)$'`;

/**
 * First minor versions without CVE-2026-6473 (any unprivileged SQL can corrupt the heap), nor the row-security bypasses
 * CVE-2024-10976 and CVE-2025-8713 before it.
 */
export const versionFloors = { 14: 140023, 15: 150018, 16: 160014, 17: 170010, 18: 180004 } as const;

/**
 * What a whole server has in common: roles, memberships, defaults, who may connect where. From the catalogs that every
 * database shares, so that any database of the server will do, whatever its runtime's version.
 */
export async function auditServer(connection: ControlConnection): Promise<AuditRow[]> {
  return (await connection.query<AuditRow>(serverAudit)).rows;
}

/** A hostile login can make as many of its own things as it likes: enough is enough. */
export const mostRows = 500;

const serverAudit = `
with recursive ours as materialized (
  select *, rolname ~ ${dataRoles} as is_data, rolname ~ '^t_' as of_home,
         rolname ~ '^t_' or rolname in ('tenancy_app', 'tenancy_catalog_reader') as connects
    from pg_catalog.pg_roles where rolname ~ ${ourRoles}),
configured as materialized (
  select s.setrole, s.setdatabase, split_part(c, '=', 1) as name, c as setting
    from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c),
connectable as materialized (
  select d.datname, a.grantee, a.privilege_type, a.is_grantable, d.datdba
    from pg_catalog.pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
   -- The server's own databases hold nothing of ours.
   where not d.datistemplate and d.datname not in ('postgres', 'rdsadmin')),
-- Who made the provisioner: PostgreSQL itself lets a role's creator administer it. On RDS it is in rds_superuser.
masters as materialized (
  select m.member as oid from pg_catalog.pg_auth_members m
    join pg_catalog.pg_roles w on w.oid = m.member and w.rolcreaterole join pg_catalog.pg_roles b on b.oid = m.grantor and b.rolsuper
   where m.roleid = pg_catalog.to_regrole('tenancy_provisioner') and m.admin_option),
reaches(oid, power) as (
  select m.member, g.rolname from pg_catalog.pg_roles g join pg_catalog.pg_auth_members m on m.roleid = g.oid
   where g.rolsuper or g.rolbypassrls or g.rolreplication or g.rolname = any (${powers})
   union
  select m.member, r.power from reaches r join pg_catalog.pg_auth_members m on m.roleid = r.oid)

select 'roles' as check, case when r.is_data then r.rolname end as login, format('role %s', r.rolname) as object,
       format('has %s', a.attribute) as finding, format('alter role %I no%s', r.rolname, lower(a.attribute)) as remedy
  from ours r, lateral (values ('SUPERUSER', rolsuper), ('BYPASSRLS', rolbypassrls), ('REPLICATION', rolreplication),
         ('CREATEROLE', rolcreaterole and rolname <> 'tenancy_provisioner'), ('CREATEDB', rolcreatedb and rolname <> 'tenancy_provisioner'),
         ('LOGIN', rolcanlogin and rolname in ('tenancy_owner', 'tenancy_keeper', 'tenancy_tenants', 'tenancy_schemas'))) a(attribute, held)
 where a.held
union all
select 'memberships', w.rolname, format('role %s', w.rolname), format('is a member of %s', g.rolname), format('revoke %I from %I', g.rolname, w.rolname)
  from pg_catalog.pg_auth_members m join pg_catalog.pg_roles g on g.oid = m.roleid join pg_catalog.pg_roles w on w.oid = m.member
 where (g.rolname ~ ${ourRoles} or w.rolname ~ ${ourRoles} or w.rolname = 'rds_iam')
   -- Whoever made a role counts as its member: the provisioner of ours, the server's master of the provisioner.
   and w.rolname <> 'tenancy_provisioner'
   and not (g.rolname = 'tenancy_provisioner' and w.oid in (select oid from masters))
   and not (w.rolname ~ '^t_[0-9a-f]{32}$' and g.rolname in ('tenancy_tenants', 'tenancy_schemas') and not m.set_option and not m.admin_option)
   and not (w.rolname ~ ${dataRoles} and g.rolname = 'rds_iam' and not m.admin_option)
union all
-- Whoever else is on the server.
select 'roles', null, format('role %s', r.rolname), format('has %s', a.attribute), format('alter role %I no%s, or drop it', r.rolname, lower(a.attribute))
  from pg_catalog.pg_roles r, lateral (values ('SUPERUSER', rolsuper), ('BYPASSRLS', rolbypassrls), ('REPLICATION', rolreplication)) a(attribute, held)
 where a.held and r.rolname !~ ${ourRoles} and not ${ofTheServer('r')}
union all
select 'memberships', null, format('role %s', w.rolname), format('may use %s', r.power), 'revoke what leads there, or drop it'
  from reaches r join pg_catalog.pg_roles w on w.oid = r.oid
 where (w.rolname !~ ${ourRoles} or w.rolname = 'tenancy_provisioner') and w.oid not in (select oid from masters) and not ${ofTheServer('w')}
union all
select 'role_settings', r.rolname, format('role %s', r.rolname), format('has no safe default of %s', n.name),
       case n.name when 'search_path' then format('alter role %I set search_path = ''''', r.rolname) else format('alter role %I set %s', r.rolname, n.name) end
  from ours r cross join unnest('{search_path,statement_timeout,lock_timeout,idle_in_transaction_session_timeout}'::text[]) n(name)
  left join configured c on c.setrole = r.oid and c.setdatabase = 0 and c.name = n.name
 where r.connects and (c.setting is null or c.setting ~ case n.name when 'search_path' then '=[^"]' else '=0\\D*$' end)
union all
select 'role_settings', r.rolname, format('role %s', r.rolname), format('has a default of its own: %s', c.setting), format('alter role %I reset %s', r.rolname, c.name)
  from ours r join configured c on c.setrole = r.oid
 where r.connects and (c.setdatabase <> 0 or c.name not in ('search_path', 'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'))
union all
select 'role_settings', r.rolname, format('role %s', r.rolname), 'may have any number of connections', format('alter role %I connection limit ${connectionLimit}', r.rolname)
  from ours r where r.of_home and r.rolconnlimit < 0
union all
select 'role_settings', null, coalesce('database ' || d.datname, 'the server'), format('gives every login a default: %s', c.setting),
       format('alter %s reset %s', coalesce('database ' || quote_ident(d.datname), 'role all'), c.name)
  from configured c left join pg_catalog.pg_database d on d.oid = c.setdatabase
 where c.setrole = 0 and c.name ~ ${misleading}
union all
-- What it looks up and runs is the control plane's, and this audit too.
select 'role_settings', null, 'role tenancy_provisioner', format('has a default of its own: %s', c.setting), format('alter role tenancy_provisioner reset %s', c.name)
  from configured c join ours r on r.oid = c.setrole and r.rolname = 'tenancy_provisioner' where c.name ~ ${misleading}
union all
select 'rights', g.rolname, format('parameter %s', p.parname), format('%s is granted to %s', a.privilege_type, coalesce(g.rolname, 'PUBLIC')),
       format('revoke all on parameter %s from %s', p.parname, coalesce(quote_ident(g.rolname), 'public'))
  from pg_catalog.pg_parameter_acl p cross join aclexplode(p.paracl) a left join ours g on g.oid = a.grantee
 where a.grantee = 0 or g.is_data
union all
select 'databases', null, format('database %s', datname), format('%s is granted to PUBLIC', privilege_type), format('revoke all on database %I from public', datname)
  from connectable where grantee = 0
union all
select 'databases', g.rolname, format('database %s', c.datname), format('%s is granted to %s', c.privilege_type, g.rolname), format('revoke all on database %I from %I', c.datname, g.rolname)
  from connectable c join ours g on g.oid = c.grantee
 where g.is_data and (c.is_grantable or c.privilege_type <> 'CONNECT' or not case
         when g.rolname in ('tenancy_app', 'tenancy_schemas') then c.datname = '${tenantsDatabase}'
         when g.rolname = 'tenancy_catalog_reader' then c.datname = '${catalogDatabase}'
         -- A home's login is let into one database: its own, or the shared one through its group.
         when g.of_home then c.datname <> '${catalogDatabase}'
           and not exists (select from connectable o where o.grantee = c.grantee and o.datname <> c.datname)
           and not exists (select from pg_catalog.pg_auth_members m join ours s on s.oid = m.roleid and s.rolname = 'tenancy_schemas' where m.member = c.grantee)
         else false end)
union all
-- Whoever owns it may open it to others, give its sessions defaults, and drop it.
select 'databases', null, format('database %s', d.datname), format('is owned by %s', r.rolname), format('alter database %I owner to tenancy_provisioner', d.datname)
  from pg_catalog.pg_database d join pg_catalog.pg_roles r on r.oid = d.datdba left join ours o on o.oid = d.datdba
 where o.is_data or d.datname ~ '^(${tenantsDatabase}|${catalogDatabase}|home_[0-9a-f]{32})$' and r.rolname <> 'tenancy_provisioner'
union all
select 'version', null, 'PostgreSQL ' || current_setting('server_version'), 'has a known hole: any SQL user can corrupt its tables (CVE-2026-6473)', 'upgrade to its newest minor version'
 where coalesce((jsonb_build_object(${Object.entries(versionFloors)
   .map(([major, floor]) => `'${major}', ${floor}`)
   .join(', ')}) -> (current_setting('server_version_num')::int / 10000)::text)::int,
         case when current_setting('server_version_num')::int < 140000 then 140000 else 0 end) > current_setting('server_version_num')::int
union all
select 'server', null, format('parameter %s', name), format('is %s: values of calls are written to the log', setting), format('set %s = 0', name)
  from pg_catalog.pg_settings where name in ('log_parameter_max_length', 'log_parameter_max_length_on_error') and setting <> '0'
union all
select 'server', null, format('parameter %s', name), format('is %s: triggers and foreign keys rest', setting), format('set %s = origin', name)
  from pg_catalog.pg_settings where name = 'session_replication_role' and setting <> 'origin'
union all
-- A home's fence too: it is a lock that every writer may take, and a prepared transaction keeps its own past its session.
select 'server', null, format('parameter %s', name), format('is %s: any login can keep its locks for ever', setting), format('set %s = 0, and restart the server', name)
  from pg_catalog.pg_settings where name = 'max_prepared_transactions' and setting <> '0'
union all
select 'server', null, 'parameter rds.force_ssl', 'is off: logins may come without TLS', 'set rds.force_ssl = 1'
 where current_setting('rds.force_ssl', true) in ('0', 'off')
union all
select 'replication', null, format('replication slot %s', slot_name), format('hands out every change of %s', coalesce('database ' || database, 'the server')), 'drop it, if it is not yours'
  -- RDS's own, of its replicas, begin so.
  from pg_catalog.pg_replication_slots where slot_type = 'logical' or slot_name !~ '^rds_'
union all
select 'replication', null, format('prepared transaction %s', gid), format('holds its locks in database %s', database), 'roll it back'
  from pg_catalog.pg_prepared_xacts
limit ${mostRows}`;

/** Longer than a commit lets go of its locks. */
const LOOK_AGAIN_MS = 50;

export interface SessionLock {
  readonly login: string;
  readonly database: string;
  readonly pid: number;
}

/**
 * Sessions of tenants' logins that hold an advisory lock outside any transaction: a call never does, and it can hold up
 * a neighbour. Looked at twice: one that is just committing has no transaction any more, and its locks still.
 */
export async function sessionLocks(connection: ControlConnection): Promise<SessionLock[]> {
  const first = await locksOutside(connection);
  if (first.length === 0) return [];
  await sleep(LOOK_AGAIN_MS);
  const pids = new Set(first.map(({ pid }) => pid));
  return (await locksOutside(connection)).filter(({ pid }) => pids.has(pid));
}

/** Outside a transaction a session's virtual transaction is number 0. */
async function locksOutside(connection: ControlConnection): Promise<SessionLock[]> {
  const { rows } = await connection.query<SessionLock>(`
    select distinct a.usename as login, a.datname as database, a.pid
      from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a using (pid)
     where l.locktype = 'advisory' and l.granted and l.virtualtransaction ~ '/0$' and a.usename ~ ${dataRoles}`);
  return rows;
}
