-- What reaches beyond a home. Its owner, tenancy_owner, owns every home of the database: what runs with its rights, or was
-- written by a migration under another schema's name, passes every wall. Run as tenancy_keeper.

-- Of these homes of one kind, and of these tables of theirs. Every row is a finding.
create function tenancy.audit_reach(home_schemas name[], logins name[], relations oid[])
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
begin
  return query
  with home as materialized (
    select h.home_schema, h.login, to_regnamespace(quote_ident(h.home_schema))::oid as oid, to_regrole(quote_ident(h.login))::oid as grantee
      from unnest(home_schemas, logins) h(home_schema, login)
  )
  select h.home_schema, p.oid::regprocedure::text, 'is a SECURITY DEFINER function: it runs with the rights of the owner of all homes', 'drop SECURITY DEFINER'
    from home h
   cross join lateral (
         select objid from pg_depend d
          where d.refclassid = 'pg_namespace'::regclass and d.refobjid = h.oid and d.classid = 'pg_proc'::regclass offset 0) d
    join pg_proc p on p.oid = d.objid
   where p.prosecdef
  union all
  -- A table for reading only has the same rows for every tenant. With such a column it has not.
  select h.home_schema, r.oid::regclass::text, 'has a column tenant_id that is not uuid',
         'declare `tenant_id uuid not null`, or name it otherwise where the rows are every tenant''s'
    from unnest(relations) given(relation)
   cross join lateral (
         select c.oid, c.relnamespace from pg_class c where c.oid = given.relation and c.relkind in ('r', 'p') and c.relname <> '_migrations' offset 0) r
    join home h on h.oid = r.relnamespace
   where exists (select from pg_attribute a where a.attrelid = r.oid and a.attname = 'tenant_id' and a.atttypid <> 'uuid'::regtype and not a.attisdropped)
     and tenancy.is_reference(r.oid, false, h.login)
  union all
  select h.home_schema, c.oid::regclass::text, format('is not of the home, and is granted to %s', h.login), format('revoke all on %s from %I', c.oid::regclass, h.login)
    from home h
   cross join lateral (
         select s.objid from pg_shdepend s
          where s.refclassid = 'pg_authid'::regclass and s.refobjid = h.grantee and s.classid = 'pg_class'::regclass and s.deptype = 'a'
            and s.dbid = (select oid from pg_database where datname = current_database()) offset 0) s
    join pg_class c on c.oid = s.objid
   where c.relnamespace <> h.oid;
end
$$;

-- What this transaction has read, written or made outside these homes: tables by the locks that it holds until its end, schemas
-- by their rows' version: one that is seen, and not committed, is this transaction's own. Others make schemas meanwhile.
create function tenancy.audit_strays(home_schemas name[])
returns table (home_schema name, object text, finding text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp set jit = off as $$
  select home_schemas[1], c.oid::regclass::text, 'is not of the home, and the file reads, writes or makes it', 'write names without a schema'
    from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
   where l.locktype = 'relation' and l.pid = pg_backend_pid() and l.database = (select oid from pg_database where datname = current_database())
     and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
     and n.nspname <> all (home_schemas) and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'tenancy', 'extensions')
   group by c.oid
  union all
  select home_schemas[1], n.nspname::text, 'is a schema of its own', 'leave schemas to the migrator'
    from pg_namespace n
   where age(n.xmin) <= 0 and n.nspname <> all (home_schemas)
     and pg_xact_status((pg_current_xact_id()::text::numeric - age(n.xmin))::text::xid8) = 'in progress'
$$;

create or replace function tenancy.complete_changes(home_schemas name[], tenants uuid[], logins name[], shared boolean)
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  relations constant oid[] := tenancy.changed_relations(home_schemas);
begin
  perform tenancy.protect_relations(home_schemas, tenants, logins, shared, relations);
  return query select * from tenancy.audit_relations(home_schemas, tenants, logins, shared, relations);
  return query select * from tenancy.audit_reach(home_schemas, logins, relations);
  return query select * from tenancy.audit_strays(home_schemas);
end
$$;

create or replace function tenancy.audit_homes(home_schemas name[], tenants uuid[], logins name[], shared boolean)
returns table (home_schema name, object text, finding text, remedy text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select * from tenancy.audit_relations(home_schemas, tenants, logins, shared, tenancy.home_relations(home_schemas))
  union all
  select * from tenancy.audit_reach(home_schemas, logins, tenancy.home_relations(home_schemas))
$$;

grant execute on function tenancy.audit_reach(name[], name[], oid[]), tenancy.audit_strays(name[]) to tenancy_owner;
