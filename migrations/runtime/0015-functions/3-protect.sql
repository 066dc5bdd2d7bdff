-- What the migrator completes on the tables of homes, in the migration's own transaction and as tenancy_owner. Each piece is
-- added only where it is missing: a table that a migration did not touch is not locked. `_migrations` is the migrator's own
-- table: no tenant has a right on it. Run as tenancy_keeper.
--
-- The cost does not depend on how many other homes the database holds. pg_class and pg_proc have no index on their schema: what
-- lives in one is found through pg_depend, where all but pg_catalog's objects are recorded. With 200 schemas of 10 tables the
-- audit of one took 230 ms otherwise, and 4 ms so. A constraint is looked for with its name as text: by pg_constraint's index on
-- names, which all homes share, that would be a look at every home's. `offset 0`: what stands in front of it is looked up row by
-- row, through an index. Without it the planner would now and then read every home's triggers or constraints, as soon as it has
-- seen few of them.

-- Tables, views and the like of every schema (`home`), but for the migrator's own. A view, because a function would be
-- planned anew in every call.
create or replace view tenancy.relations as
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
create or replace function tenancy.is_reference(relation oid, has_tenant boolean, login name) returns boolean
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

-- Tables, views and the like of these schemas, the migrator's own included.
create or replace function tenancy.home_relations(home_schemas name[]) returns oid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
begin
  return array(
    select d.objid from unnest(home_schemas) h(home_schema) cross join lateral (
      select objid from pg_depend d
       where d.refclassid = 'pg_namespace'::regclass and d.refobjid = to_regnamespace(quote_ident(h.home_schema)) and d.classid = 'pg_class'::regclass offset 0) d);
end
$$;

-- What this transaction has changed about tables and views, at least those of these schemas. Two things give it away.
--  * A lock: whatever changes or takes away a column, key, constraint, default, trigger, rule, policy, owner or option of a
--    table locks it against other changes, and no lock ends before its transaction. Rows are written under weaker ones.
--  * A new version of its row in pg_class or pg_attribute: a grant locks nothing, and writes it there. `age` counts from this
--    transaction's number: what it or its subtransactions wrote is not older. What others wrote meanwhile may come along.
-- And tables whose foreign keys point at one of those: whether such a key may leave out tenant_id is the other table's affair.
create or replace function tenancy.changed_relations(home_schemas name[]) returns oid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
begin
  return array(
    with here as materialized (
      select unnest(tenancy.home_relations(home_schemas)) as oid
    ),
    changed as materialized (
      select l.relation as oid from pg_locks l
       where l.locktype = 'relation' and l.pid = pg_backend_pid() and l.database = (select oid from pg_database where datname = current_database())
         and l.mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
      union
      select h.oid from here h where exists (select from pg_class c where c.oid = h.oid and age(c.xmin) <= 0)
      union
      select h.oid from here h where exists (select from pg_attribute a where a.attrelid = h.oid and age(a.xmin) <= 0)
    )
    select oid from changed
    union
    select f.conrelid from changed c
     cross join lateral (
           select objid from pg_depend d
            where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and d.classid = 'pg_constraint'::regclass and d.deptype = 'n' offset 0) d
      join pg_constraint f on f.oid = d.objid and f.contype = 'f');
end
$$;

-- As what it calls is: PostgreSQL puts it into the audit's query then. As IMMUTABLE it was a query of its own for every table,
-- three quarters of the audit.
create or replace function tenancy.key_arguments(columns text[]) returns text
language sql stable as $$
  select replace(encode(convert_to(array_to_string(columns, chr(1)) || chr(1), 'UTF8'), 'escape'), chr(1), '\000')
$$;

-- Before the tables are completed: what a file with `-- shared` made without tenant_id is for reading only.
create or replace function tenancy.protect_reference(home_schema name, login name) returns void
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

-- Completes these tables and views of homes of one kind.
--
-- Shared tables: the rows' policy is for PUBLIC, because a login may say DROP OWNED BY itself, which drops the policies that name
-- it, and all its neighbours would find nothing any more. The guard (a permissive policy added later widens nothing) can be lost
-- in that way without harm. It is for the app's login alone: to PUBLIC it would bind the owner too, whose backfills would then
-- report UPDATE 0 and whose foreign keys would be validated over orphans, silently. The owner has a policy of its own, which
-- raises unless the transaction holds a signed context for maintenance.
--
-- The wall goes before every condition of a statement's own, whatever it costs. PostgreSQL lets conditions that can't leak go by
-- their price: those that cost less than `tenant_id = …` were evaluated for others' rows, and one of them may hold a subquery, which
-- runs at the first row that those in front of it let through: `amount = any ('{5}') and amount = any (array[(select f())])`. What f
-- does (it sets a setting, raises, sleeps) told whether anybody has such a row. So the same comparison is made once more of what
-- PostgreSQL counts as free: a look for the tenant's key in an object made of the row's. Of conditions that cost the same, a
-- policy's go first. It takes about a microsecond a row. What is written is compared by the operator alone, which is for indexes too.
--
-- A tenant's own tables: no row security (its login's grants are the wall), but no row may name another tenant, so that none can be
-- planted here and carried into shared tables later.
create or replace function tenancy.protect_relations(home_schemas name[], tenants uuid[], logins name[], shared boolean, relations oid[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  command text;
  own constant text := 'tenant_id = (select tenancy.current_tenant())';
  first constant text := '(json_object(tenant_id : true returning jsonb))[(select tenancy.current_tenant()::text)] is not null';
  maintained constant text := 'tenant_id = any ((select tenancy.maintained_tenants())::uuid[])';
begin
  for command in
    with home as materialized (
      select h.*, to_regnamespace(quote_ident(h.home_schema))::oid as oid from unnest(home_schemas, tenants, logins) h(home_schema, tenant, login)
    ),
    relation as materialized (
      select h.home_schema, h.tenant, h.login, r.*, t.attnum is not null as has_tenant, coalesce(t.atthasdef, false) as has_default
        from unnest(relations) given(relation)
       cross join lateral (
             select oid, oid::regclass as name, relnamespace as home, relkind as kind, relispartition as is_partition, reloptions, relrowsecurity, relforcerowsecurity
               from pg_class where oid = given.relation and relkind in ('r', 'p', 'v') and relname <> '_migrations' offset 0) r
        join home h on h.oid = r.home
        left join lateral (
             select attnum, atthasdef from pg_attribute
              where attrelid = r.oid and attname = 'tenant_id' and atttypid = 'uuid'::regtype and not attisdropped offset 0) t on true
       where not (r.kind <> 'v' and tenancy.is_reference(r.oid, t.attnum is not null, h.login))
    ),
    -- All that one table lacks is one ALTER TABLE.
    lacking as (
      -- Read from the setting, which tool SQL can change: policy or constraint verify what it says.
      select r.name, 1 as place, 'alter column tenant_id set default nullif(current_setting(''tenancy.tenant'', true), '''')::uuid' as part
        from relation r where r.has_tenant and r.kind <> 'v' and not r.has_default
      -- A move applies changes in an order of its own.
      union all
      select r.name, 2, format('alter constraint %I deferrable initially immediate', f.conname)
        from relation r cross join lateral (
             select conname from pg_constraint where conrelid = r.oid and contype = 'f' and not condeferrable and conparentid = 0 offset 0) f
      union all
      select r.name, 3, 'enable row level security, force row level security'
        from relation r where shared and r.has_tenant and r.kind <> 'v' and not (r.relrowsecurity and r.relforcerowsecurity)
      -- By its digest: every login of the cluster can read pg_constraint, which shall not be a list of our tenants. A partition
      -- has its parent's.
      union all
      select r.name, 4, format('add constraint tenancy_home check (sha256(uuid_send(tenant_id)) = %L::bytea)', sha256(uuid_send(r.tenant)))
        from relation r where not shared and r.has_tenant and r.kind <> 'v' and not r.is_partition
         and not exists (select from pg_constraint c where c.conrelid = r.oid and c.conname::text = 'tenancy_home' offset 0)
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
      select 5, format('create policy %s on %s as %s for all to %s using (%s) with check (%s)', p.name, r.name, p.kind, p.role, p.sees, p.writes)
        from relation r, (values ('tenancy_guard', 'restrictive', 'tenancy_app', concat_ws(' and ', own, first), own),
                                 ('tenancy_rows', 'permissive', 'public', concat_ws(' and ', own, first), own),
                                 ('tenancy_maintenance', 'permissive', 'tenancy_owner', maintained, maintained)) p(name, kind, role, sees, writes)
       where shared and r.has_tenant and r.kind <> 'v'
         and not exists (select from pg_policy y where y.polrelid = r.oid and y.polname = p.name offset 0)
      -- A partition has its parent's trigger.
      union all
      select 6, format(
          'create or replace trigger tenancy_capture after insert or update or delete on %s for each row '
          'when (current_setting(''tenancy.capture'', true) = ''1'') execute function tenancy.capture(%s)',
          r.name, (select string_agg(quote_literal(c), ', ') from unnest(k.columns) c))
        from relation r cross join lateral (select (select array(select a.attname::text from unnest(p.conkey) with ordinality k(attnum, position)
                            join pg_attribute a on a.attrelid = p.conrelid and a.attnum = k.attnum order by k.position)
                     from pg_constraint p where p.conrelid = r.oid and p.contype = 'p') as columns offset 0) k
       where r.kind <> 'v' and not r.is_partition and k.columns is not null
         and not exists (select from pg_trigger g where g.tgrelid = r.oid and g.tgname = 'tenancy_capture'
               and encode(g.tgargs, 'escape') = tenancy.key_arguments(k.columns) offset 0)
    ) c order by c.place
  loop
    execute command;
  end loop;
end
$$;

-- Files as ORMs write them switch row security on. In a tenant's own tables nobody makes policies for it, and without one its login
-- would find no row there any more. Where a file has made policies it is the adopting team's own.
create or replace function tenancy.open_owned(home_schemas name[], relations oid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  item regclass;
begin
  for item in
    select r.name
      from unnest(relations) given(relation)
     cross join lateral (
           select oid, oid::regclass as name, relnamespace as home from pg_class
            where oid = given.relation and relkind in ('r', 'p') and (relrowsecurity or relforcerowsecurity) offset 0) r
     where r.home = any (array(select to_regnamespace(quote_ident(h))::oid from unnest(home_schemas) h))
       and not exists (select from pg_policy p where p.polrelid = r.oid offset 0)
  loop
    execute format('alter table %s disable row level security, no force row level security', item);
  end loop;
end
$$;

create or replace function tenancy.protect_homes(home_schemas name[], tenants uuid[], logins name[], shared boolean) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tenancy.open_owned(home_schemas, tenancy.home_relations(home_schemas)) where not shared;
  select tenancy.protect_relations(home_schemas, tenants, logins, shared, tenancy.home_relations(home_schemas))
$$;

-- By hand, for what the canary has found.
create or replace function tenancy.protect_shared(home_schema name) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tenancy.protect_homes(array[home_schema], array[null::uuid], array['tenancy_app'::name], true)
$$;

create or replace function tenancy.protect_owned(home_schema name, tenant uuid, login name) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tenancy.protect_homes(array[home_schema], array[tenant], array[login], false)
$$;

grant select on tenancy.relations to tenancy_owner;
grant execute on function tenancy.is_reference(oid, boolean, name), tenancy.home_tables(name), tenancy.home_relations(name[]),
  tenancy.changed_relations(name[]), tenancy.key_arguments(text[]), tenancy.protect_reference(name, name),
  tenancy.protect_relations(name[], uuid[], name[], boolean, oid[]), tenancy.protect_homes(name[], uuid[], name[], boolean),
  tenancy.protect_shared(name), tenancy.protect_owned(name, uuid, name) to tenancy_owner;
grant execute on function tenancy.open_owned(name[], oid[]) to tenancy_owner;
