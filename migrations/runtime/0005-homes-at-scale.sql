-- Protection and audit of a home whose cost does not depend on how many others the database holds. pg_class and pg_proc have
-- no index on their schema: what lives in one is found through pg_depend, where all but pg_catalog's objects are recorded.
-- With 200 schemas of 10 tables the audit of one took 230 ms before, and 4 ms now.

-- A constraint is looked for with its name as text: by pg_constraint's index on names, which all homes share, that would be
-- a look at every home's.

-- Tables, views and the like of every schema (`home`), but for the migrator's own. A view, because a function would be
-- planned anew in every call.
create view tenancy.relations as
  select d.refobjid as home, c.oid, c.oid::regclass as name, c.relkind as kind, c.relispartition as is_partition, c.relowner, c.relacl,
         c.reloptions, c.relrowsecurity, c.relforcerowsecurity,
         t.attnum is not null as has_tenant, coalesce(t.attnotnull, false) as tenant_not_null, t.tenant_default,
         (select array_agg(a.attname::text order by k.position)
            from pg_constraint p, unnest(p.conkey) with ordinality k(attnum, position), pg_attribute a
           where p.conrelid = c.oid and p.contype = 'p' and a.attrelid = c.oid and a.attnum = k.attnum) as key_columns
    from pg_depend d join pg_class c on c.oid = d.objid
    left join lateral (
      select a.attnum, a.attnotnull, (select pg_get_expr(x.adbin, x.adrelid) from pg_attrdef x where x.adrelid = c.oid and x.adnum = a.attnum) as tenant_default
        from pg_attribute a
       where a.attrelid = c.oid and a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype and not a.attisdropped) t on true
   where d.refclassid = 'pg_namespace'::regclass and d.classid = 'pg_class'::regclass and c.relname <> '_migrations';

-- A table without tenant_id that the home's login may only read is a reference table: the same rows for every tenant,
-- changed by migrations (`-- shared`) alone.
create function tenancy.is_reference(relation oid, has_tenant boolean, login name) returns boolean
language sql stable as $$
  select not has_tenant and has_table_privilege(login, relation, 'select')
     and not has_table_privilege(login, relation, 'insert, update, delete, truncate')
$$;

create or replace function tenancy.home_tables(home_schema name) returns table (relation regclass, is_partition boolean)
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  select c.oid::regclass, c.relispartition
    from pg_depend d join pg_class c on c.oid = d.objid
   where d.refclassid = 'pg_namespace'::regclass and d.refobjid = (select oid from pg_namespace where nspname = home_schema)
     and d.classid = 'pg_class'::regclass and c.relkind in ('r', 'p') and c.relname <> '_migrations'
   order by c.oid
$$;

-- Before the tables are completed: what a file with `-- shared` made without tenant_id is for reading only.
create function tenancy.protect_reference(home_schema name, login name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  item record;
begin
  for item in select r.name from tenancy.relations r
      where r.home = (select oid from pg_namespace where nspname = home_schema)
        and r.kind in ('r', 'p') and not r.has_tenant and not has_table_privilege(login, r.oid, 'select')
  loop
    execute format('grant select on %s to %I', item.name, login);
  end loop;
end
$$;

-- Completes the tables and views of many homes of one kind. Each piece is added only where it is missing: a table that a
-- migration did not touch is not locked. What each piece is for stands with the functions that this one follows.
create function tenancy.protect_homes(home_schemas name[], tenants uuid[], logins name[], shared boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  command text;
  own constant text := 'tenant_id = (select tenancy.current_tenant())';
  maintained constant text := '(select tenancy.maintained_tenant()) is null or tenant_id = (select tenancy.maintained_tenant())';
begin
  for command in
    with home as materialized (
      select * from unnest(home_schemas, tenants, logins) h(home_schema, tenant, login)
    ),
    relation as materialized (
      select h.home_schema, h.tenant, h.login, r.*
        from home h join pg_namespace n on n.nspname = h.home_schema join tenancy.relations r on r.home = n.oid
       where r.kind in ('r', 'p', 'v') and not (r.kind <> 'v' and tenancy.is_reference(r.oid, r.has_tenant, h.login))
    ),
    -- All that one table lacks is one ALTER TABLE.
    lacking as (
      -- Read from the setting, which tool SQL can change: policy or constraint verify what it says.
      select r.name, 1 as place, 'alter column tenant_id set default nullif(current_setting(''tenancy.tenant'', true), '''')::uuid' as part
        from relation r where r.has_tenant and r.kind <> 'v' and r.tenant_default is null
      -- A move applies changes in an order of its own.
      union all
      select r.name, 2, format('alter constraint %I deferrable initially immediate', f.conname)
        from relation r join pg_constraint f on f.conrelid = r.oid
       where f.contype = 'f' and not f.condeferrable and f.conparentid = 0
      union all
      select r.name, 3, 'enable row level security, force row level security'
        from relation r where shared and r.has_tenant and r.kind <> 'v' and not (r.relrowsecurity and r.relforcerowsecurity)
      -- By its digest: every login of the cluster can read pg_constraint, which shall not be a list of our tenants. A partition
      -- has its parent's.
      union all
      select r.name, 4, format('add constraint tenancy_home check (sha256(uuid_send(tenant_id)) = %L::bytea)', sha256(uuid_send(r.tenant)))
        from relation r where not shared and r.has_tenant and r.kind <> 'v' and not r.is_partition
         and not exists (select from pg_constraint c where c.conrelid = r.oid and c.conname::text = 'tenancy_home')
    )
    select c.command from (
      select 1 as place, format('grant usage on schema %I to %I', h.home_schema, h.login) as command
        from home h where not has_schema_privilege(h.login, h.home_schema, 'usage')
      union all
      select 2, format('grant select, insert, update, delete on %s to %I', string_agg(r.name::text, ', '), r.login)
        from relation r where not r.is_partition and not has_table_privilege(r.login, r.oid, 'select')
       group by r.home_schema, r.login
      union all
      select 3, format('alter view %s set (security_invoker = true)', r.name)
        from relation r where r.kind = 'v' and not coalesce(r.reloptions @> '{security_invoker=true}', false)
      union all
      select 4, format('alter table %s %s', l.name, string_agg(l.part, ', ' order by l.place)) from lacking l group by l.name
      union all
      select 5, format('create policy %s on %s as %s for all to %s using (%s) with check (%s)', p.name, r.name, p.kind, p.role, p.expression, p.expression)
        from relation r, (values ('tenancy_guard', 'restrictive', 'tenancy_app', own), ('tenancy_rows', 'permissive', 'public', own),
                                 ('tenancy_maintenance', 'permissive', 'tenancy_owner', maintained)) p(name, kind, role, expression)
       where shared and r.has_tenant and r.kind <> 'v'
         and not exists (select from pg_policy y where y.polrelid = r.oid and y.polname = p.name)
      -- A partition has its parent's trigger.
      union all
      select 6, format(
          'create or replace trigger tenancy_capture after insert or update or delete on %s for each row '
          'when (current_setting(''tenancy.capture'', true) = ''1'') execute function tenancy.capture(%s)',
          r.name, (select string_agg(quote_literal(c), ', ') from unnest(r.key_columns) c))
        from relation r
       where r.kind <> 'v' and not r.is_partition and r.key_columns is not null
         and not exists (select from pg_trigger g where g.tgrelid = r.oid and g.tgname = 'tenancy_capture'
               and encode(g.tgargs, 'escape') = array_to_string(r.key_columns, '\000') || '\000')
    ) c order by c.place
  loop
    execute command;
  end loop;
end
$$;

create or replace function tenancy.protect_shared(home_schema name) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tenancy.protect_homes(array[home_schema], array[null::uuid], array['tenancy_app'::name], true)
$$;

create or replace function tenancy.protect_owned(home_schema name, tenant uuid, login name) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tenancy.protect_homes(array[home_schema], array[tenant], array[login], false)
$$;

drop function tenancy.protect_common(name, name);

-- The audit of many homes of one kind at once: a batch of migrations asks once. Every row is a finding.
create function tenancy.audit_homes(home_schemas name[], tenants uuid[], logins name[], shared boolean)
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  own constant text := '(tenant_id = ( SELECT tenancy.current_tenant() AS current_tenant))';
  maintained constant text := '((( SELECT tenancy.maintained_tenant() AS maintained_tenant) IS NULL) OR (tenant_id = ( SELECT tenancy.maintained_tenant() AS maintained_tenant)))';
  own_default constant text := '(NULLIF(current_setting(''tenancy.tenant''::text, true), ''''::text))::uuid';
begin
  return query
  with home as materialized (
    select h.home_schema, h.tenant, h.login, n.oid, n.nspowner, n.nspacl, to_regrole(quote_ident(h.login))::oid as grantee
      from unnest(home_schemas, tenants, logins) h(home_schema, tenant, login) left join pg_namespace n on n.nspname = h.home_schema
  ),
  relation as materialized (
    select h.home_schema, h.tenant, h.grantee, r.*,
           r.kind in ('r', 'p') and tenancy.is_reference(r.oid, r.has_tenant, h.login) as is_reference
      from home h join tenancy.relations r on r.home = h.oid
     where h.grantee is not null
  ),
  tenant_table as materialized (select * from relation r where r.kind in ('r', 'p') and not r.is_reference),
  foreign_key as materialized (
    select t.home_schema, t.home, f.* from tenant_table t join pg_constraint f on f.conrelid = t.oid and f.contype = 'f'
  ),
  function as materialized (
    select h.home_schema, p.* from home h
      join pg_depend d on d.refclassid = 'pg_namespace'::regclass and d.refobjid = h.oid and d.classid = 'pg_proc'::regclass
      join pg_proc p on p.oid = d.objid
  )
  select h.home_schema, h.home_schema::text, case when h.oid is null then 'the schema does not exist' else 'its login does not exist' end, 'provision the home again'
    from home h where h.oid is null or h.grantee is null

  -- Shape: the same in every strategy.
  union all
  select t.home_schema, t.name::text, 'has no column `tenant_id uuid not null`',
         'declare `tenant_id uuid not null` as its first column, or begin the file with `-- shared` when the table is for reading only'
    from tenant_table t where not t.tenant_not_null
  union all
  select t.home_schema, t.name::text, 'has no primary key that starts with tenant_id', 'write `primary key (tenant_id, …)`'
    from tenant_table t where coalesce(t.key_columns[1], '') <> 'tenant_id'
  union all
  select t.home_schema, i.indexrelid::regclass::text, 'is unique over all tenants: one could probe for another''s values', 'add tenant_id to its columns'
    from tenant_table t join pg_index i on i.indrelid = t.oid
   -- Anywhere among the key columns: where a tenant has tables of its own, statements do not name tenant_id, and an index
   -- that it leads is of no use to them.
   where (i.indisunique or i.indisexclusion) and not exists (select from pg_attribute a
           where a.attrelid = i.indrelid and a.attname = 'tenant_id' and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
             and (not i.indisexclusion or exists (select from pg_constraint x, unnest(x.conkey, x.conexclop) k(attnum, operator)
                   where x.conrelid = t.oid and x.conindid = i.indexrelid and k.attnum = a.attnum and k.operator = 'pg_catalog.=(uuid,uuid)'::regoperator)))
  union all
  select f.home_schema, format('%s.%s', f.conrelid::regclass, f.conname), 'is a foreign key that can point at another tenant''s row',
         'write `foreign key (tenant_id, …) references … (tenant_id, …)`, within the home'
    from foreign_key f
   where not exists (select from relation r where r.oid = f.confrelid and r.home = f.home and r.is_reference)
     and (not exists (
           select from unnest(f.conkey, f.confkey) k(here, there)
             join pg_attribute x on x.attrelid = f.conrelid and x.attnum = k.here and x.attname = 'tenant_id'
             join pg_attribute y on y.attrelid = f.confrelid and y.attnum = k.there and y.attname = 'tenant_id')
      or (select relnamespace from pg_class where oid = f.confrelid) <> f.home)
  union all
  select f.home_schema, format('%s.%s', f.conrelid::regclass, f.conname), 'would set tenant_id itself to null or its default',
         'name the columns: `on delete set null (column)`'
    from foreign_key f
    join pg_attribute a on a.attrelid = f.conrelid and a.attname = 'tenant_id' and a.attnum = any (f.conkey)
   where f.confupdtype in ('n', 'd') or f.confdeltype in ('n', 'd') and (f.confdelsetcols is null or a.attnum = any (f.confdelsetcols))
  union all
  select f.home_schema, format('%s.%s', f.conrelid::regclass, f.conname), 'is not deferrable', 'let the migrator complete it: do not alter it'
    from foreign_key f where not f.condeferrable
  union all
  select t.home_schema, t.name::text, 'draws from a sequence in a default: it pins RDS Proxy, and tells how busy others are',
         'use `gen_random_uuid()` for keys, `generated always as identity` elsewhere'
    from tenant_table t join pg_attrdef d on d.adrelid = t.oid
   where position(format(' :funcid %s ', 'nextval(regclass)'::regprocedure::oid) in d.adbin::text) > 0
  union all
  select t.home_schema, t.name::text, 'has a default of its own for tenant_id', 'leave the default of tenant_id to the migrator'
    from tenant_table t where t.tenant_default is distinct from own_default
  union all
  select t.home_schema, t.name::text, 'has no capture trigger, or not on every change', 'do not drop, alter or disable the trigger tenancy_capture'
    from tenant_table t
   where not t.is_partition and not exists (select from pg_trigger g where g.tgrelid = t.oid and g.tgname = 'tenancy_capture'
           and g.tgenabled in ('O', 'A') and g.tgtype = 29 and g.tgfoid = 'tenancy.capture()'::regprocedure
           and encode(g.tgargs, 'escape') = array_to_string(t.key_columns, '\000') || '\000')

  -- Kinds of objects that go round the wall.
  union all
  select r.home_schema, r.name::text, case r.kind when 'm' then 'is a materialized view: it holds rows without their wall'
           when 'f' then 'is a foreign table: it has no wall' else 'is a view with its owner''s rights' end,
         case r.kind when 'v' then 'write `with (security_invoker = true)`' else 'use a table or a view' end
    from relation r where r.kind in ('m', 'f') or r.kind = 'v' and not coalesce(r.reloptions @> '{security_invoker=true}', false)
  union all
  select r.home_schema, format('%s.%s', w.ev_class::regclass, w.rulename), 'is a rule: it rewrites statements with its owner''s rights', 'use a trigger'
    from relation r join pg_rewrite w on w.ev_class = r.oid where w.rulename <> '_RETURN'
  union all
  select p.home_schema, p.oid::regprocedure::text, 'is a SECURITY DEFINER function without a fixed path',
         'drop SECURITY DEFINER, or write `set search_path = pg_catalog, pg_temp` and qualify its names'
    from function p where p.prosecdef and not exists (
           select from unnest(p.proconfig) s where s ~ '^search_path=(pg_catalog, ?)?pg_temp$' or s in ('search_path=', 'search_path=""'))
  union all
  select p.home_schema, p.oid::regprocedure::text, 'is marked LEAKPROOF', 'drop LEAKPROOF' from function p where p.proleakproof
  union all
  select r.home_schema, r.name::text, format('is owned by %s', pg_get_userbyid(r.relowner)), 'do not change owners'
    from relation r where r.relowner <> 'tenancy_owner'::regrole

  -- Rights: data only, and for the home's login alone.
  union all
  select r.home_schema, r.name::text, format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: the migrator does'
    from relation r, aclexplode(r.relacl) a
   where a.grantee <> r.relowner
     and (a.grantee <> r.grantee or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') or a.is_grantable)
  union all
  select h.home_schema, c.oid::regclass::text, format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: it is the migrator''s own'
    from home h join pg_class c on c.relname = '_migrations' and c.relnamespace = h.oid, aclexplode(c.relacl) a
   where a.grantee <> c.relowner
  union all
  select r.home_schema, format('%s.%s', c.attrelid::regclass, c.attname), format('%s is granted on a column', a.privilege_type), 'do not grant: the migrator does'
    from relation r join pg_attribute c on c.attrelid = r.oid and c.attacl is not null, aclexplode(c.attacl) a
   where a.grantee <> r.relowner
  union all
  select h.home_schema, format('schema %s', h.home_schema), format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: the migrator does'
    from home h, aclexplode(h.nspacl) a
   where a.grantee <> h.nspowner and (a.grantee <> h.grantee or a.privilege_type <> 'USAGE')

  -- Shared tables.
  union all
  select t.home_schema, t.name::text, 'row-level security is not enabled and forced', 'do not disable it'
    from tenant_table t where shared and not (t.relrowsecurity and t.relforcerowsecurity)
  union all
  select t.home_schema, t.name::text, format('the policy %s is missing or changed', expected.name), 'leave policies to the migrator'
    from tenant_table t,
         (values ('tenancy_guard', false, 'tenancy_app', own), ('tenancy_rows', true, 'public', own),
                 ('tenancy_maintenance', true, 'tenancy_owner', maintained)) expected(name, permissive, role, expression)
   where shared and not exists (select from pg_policy p where p.polrelid = t.oid and p.polname = expected.name
           and p.polpermissive = expected.permissive and p.polcmd = '*' and p.polroles = array[coalesce(to_regrole(expected.role)::oid, 0)]
           and pg_get_expr(p.polqual, p.polrelid) = expected.expression and pg_get_expr(p.polwithcheck, p.polrelid) = expected.expression)
  union all
  select t.home_schema, format('%s.%s', p.polrelid::regclass, p.polname), 'is a policy of its own: a permissive one widens what a tenant sees',
         'drop it; rules of the application belong into its statements'
    from tenant_table t join pg_policy p on p.polrelid = t.oid
   where shared and p.polname not in ('tenancy_guard', 'tenancy_rows', 'tenancy_maintenance')

  -- A tenant's own tables.
  union all
  select t.home_schema, t.name::text, 'does not refuse rows of other tenants', 'do not drop the constraint tenancy_home'
    from tenant_table t
   where not shared and not exists (select from pg_constraint c where c.conrelid = t.oid and c.conname::text = 'tenancy_home' and c.convalidated
           and pg_get_expr(c.conbin, c.conrelid) = format('(sha256(uuid_send(tenant_id)) = ''%s''::bytea)', sha256(uuid_send(t.tenant))));
end
$$;

create or replace function tenancy.audit(home_schema name, shared boolean, tenant uuid, login name)
returns table (object text, finding text, remedy text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select a.object, a.finding, a.remedy from tenancy.audit_homes(array[home_schema], array[tenant], array[login], shared) a
$$;

grant select on tenancy.relations to tenancy_owner;
grant execute on function tenancy.is_reference(oid, boolean, name), tenancy.protect_reference(name, name),
  tenancy.protect_homes(name[], uuid[], name[], boolean), tenancy.audit_homes(name[], uuid[], name[], boolean) to tenancy_owner;
