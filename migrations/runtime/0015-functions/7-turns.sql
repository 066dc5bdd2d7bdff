-- What a migration's statements must not carry from one tenant to another in the tables that they share, and what would tell that they
-- did. Run as tenancy_keeper.

create or replace function tenancy.tenants_in(home_schema name) returns text[]
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(h.tenant_id::text order by h.tenant_id), '{00000000-0000-0000-0000-000000000000}')
    from tenancy.homes h where h.schema_name = home_schema
$$;

-- What a file has made, or opened, is for its next statement like what was there: the default of tenant_id, and in shared tables the
-- wall, come before rows do, the rest of its protection at the file's end. `in_turns`: a statement runs for one tenant after the other.
-- Policies of a file's own count for nobody while it runs: one that is taken away again before the file's end shows everybody's rows until
-- then. And a key over all tenants would tell of the others' rows. It comes before every statement, so what it asks of each table has to be cheap.
create or replace function tenancy.prepare_tables(home_schema name, shared boolean, in_turns boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  maintained constant text := 'tenant_id = any ((select tenancy.maintained_tenants())::uuid[])';
  item record;
  own_policy name;
begin
  for item in
    select r.*, t.attnum is not null as has_tenant, coalesce(t.atthasdef, false) as has_default,
           shared and exists (select from pg_policy p where p.polrelid = r.oid and p.polname = 'tenancy_maintenance' offset 0) as has_policy,
           case when shared then array(
                  select p.polname from pg_policy p
                   where p.polrelid = r.oid and p.polname not in ('tenancy_maintenance', 'tenancy_guard', 'tenancy_rows')
                     and p.polroles <> array['tenancy_app'::regrole::oid] offset 0) end as own_policies,
           in_turns and exists (
                  select from pg_index i
                   where i.indrelid = r.oid and (i.indisunique or i.indisexclusion)
                     and not coalesce(t.attnum = any (i.indkey[0:i.indnkeyatts - 1]), false) offset 0) as is_unique_over_all
      from unnest(tenancy.home_relations(array[home_schema])) h(oid)
     cross join lateral (
           select oid, oid::regclass as name, relkind as kind, relrowsecurity and relforcerowsecurity as has_wall,
                  relrowsecurity or relforcerowsecurity as is_closed from pg_class
            where oid = h.oid and relkind in ('r', 'p', 'm') and relname <> '_migrations' offset 0) r
      left join lateral (
           select attnum, atthasdef from pg_attribute
            where attrelid = r.oid and attname = 'tenant_id' and atttypid = 'uuid'::regtype and not attisdropped offset 0) t on true
  loop
    if item.is_closed and not shared then
      perform tenancy.open_owned(array[home_schema], array[item.oid]);
    end if;
    if item.kind = 'm' then
      if in_turns then
        raise exception '% would carry rows from one tenant to the next', item.name using errcode = 'TN012';
      end if;
    elsif item.has_tenant then
      -- By `on conflict do nothing` a tenant's row would not be there because another one has such a row.
      if item.is_unique_over_all then
        raise exception '% has a key over all tenants', item.name using errcode = 'TN012';
      end if;
      if not item.has_default then
        execute format('alter table %s alter column tenant_id set default nullif(current_setting(''tenancy.tenant'', true), '''')::uuid', item.name);
      end if;
      if shared and not item.has_wall then
        execute format('alter table %s enable row level security, force row level security', item.name);
      end if;
      if shared and not item.has_policy then
        execute format('create policy tenancy_maintenance on %s to tenancy_owner using (%s) with check (%s)', item.name, maintained, maintained);
      end if;
      -- A policy of the file's own would show its next statements the rows of all tenants. It is the owner's no more; if it is still
      -- there at the file's end, the audit refuses it.
      if shared then
        foreach own_policy in array item.own_policies loop
          execute format('alter policy %I on %s to tenancy_app', own_policy, item.name);
        end loop;
      end if;
    end if;
  end loop;
end
$$;

-- Nor do policies of ours that a file has changed. Only a statement of its own can have done that (a block that does is refused), so they
-- are looked at behind such a statement, and where another file begins: to read what a policy says takes longer than all that is asked before each.
create or replace function tenancy.undo_policies(home_schema name) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  maintained constant text := 'tenant_id = any ((select tenancy.maintained_tenants())::uuid[])';
  as_seen constant text := '((tenant_id = ( SELECT tenancy.current_tenant() AS current_tenant)) AND '
    '((JSON_OBJECT(tenant_id : true RETURNING jsonb))[( SELECT (tenancy.current_tenant())::text AS current_tenant)] IS NOT NULL))';
  as_kept constant text := '(tenant_id = ANY (( SELECT tenancy.maintained_tenants() AS maintained_tenants)::uuid[]))';
  item record;
begin
  for item in
    select h.oid::regclass as name, p.*
      from unnest(tenancy.home_relations(array[home_schema])) h(oid)
     cross join lateral (
           select polname, polroles, pg_get_expr(polqual, polrelid) as shows, pg_get_expr(polwithcheck, polrelid) as takes from pg_policy
            where polrelid = h.oid and age(xmin) <= 0 and polname in ('tenancy_maintenance', 'tenancy_guard', 'tenancy_rows') offset 0) p
  loop
    if item.polname = 'tenancy_maintenance' then
      if (item.shows, item.takes) is distinct from (as_kept, as_kept) then
        execute format('alter policy tenancy_maintenance on %s to tenancy_owner using (%s) with check (%s)', item.name, maintained, maintained);
      end if;
    elsif item.shows is distinct from as_seen and item.polroles <> array['tenancy_app'::regrole::oid] then
      execute format('alter policy %I on %s to tenancy_app', item.polname, item.name);
    end if;
  end loop;
end
$$;

-- How many rows of tables without tenant_id were written: what one tenant's turn leaves there, the next one's finds, also where the file
-- drops the table again. Those for every tenant to read are looked at when the file has ended, but for one that the file has made, or
-- given everybody to read: it may be gone by then.
create or replace function tenancy.rows_without_tenant(home_schema name) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
begin
  return (
    -- Counts first: hardly any table has one, and what it is costs more to ask.
    select coalesce(sum(h.changed), 0)
      from (select oid, tenancy.rows_changed(oid) as changed from unnest(tenancy.home_relations(array[home_schema])) oid offset 0) h
     cross join lateral (select oid, age(xmin) > 0 as is_as_it_was from pg_class where oid = h.oid and relkind in ('r', 'p') and relname <> '_migrations' offset 0) r
     where h.changed > 0
       and not exists (
           select from pg_attribute where attrelid = r.oid and attname = 'tenant_id' and atttypid = 'uuid'::regtype and not attisdropped)
       and not (tenancy.is_reference(r.oid, false, 'tenancy_app') and r.is_as_it_was));
end
$$;

-- Triggers of a home's own that wait for the transaction's end. They would fire there for nobody, or in the turn of whoever lets them:
-- with one tenant's row among another's.
create or replace function tenancy.deferred_triggers(home_schema name) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select string_agg(distinct format('%I.%I', home_schema, c.conname), ', ')
    from unnest(tenancy.home_relations(array[home_schema])) h(oid) join pg_constraint c on c.conrelid = h.oid
   where c.contype = 't' and c.condeferred
$$;

-- How many policies were made or changed. One that a block makes, and takes away at its end, shows it everybody's rows.
create or replace function tenancy.policies_made() returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select pg_stat_get_xact_tuples_inserted('pg_policy'::regclass) + pg_stat_get_xact_tuples_updated('pg_policy'::regclass)
$$;

-- How often the catalogs' rows were changed that say what tables are, and what is computed and compared in them.
create or replace function tenancy.catalogs_changed() returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  return (
    select sum(pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c) + pg_stat_get_xact_tuples_deleted(c))
      from unnest('{pg_class,pg_attribute,pg_attrdef,pg_constraint,pg_rewrite,pg_proc,pg_type,pg_enum,pg_range,pg_description,pg_trigger,pg_index,pg_policy,pg_sequence}'::regclass[]) c);
end
$$;

-- Where the rows of a home's tables are, and which columns they have: an entry goes or changes when a table goes, is emptied or written
-- anew, or a column of it goes, or one of them gets another name: all others' values would be under that. And that views, constraints
-- and triggers of these names are there.
create or replace function tenancy.places_of_rows(home_schema name) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  relations constant oid[] := tenancy.home_relations(array[home_schema]);
begin
  return (
    select coalesce(jsonb_object_agg(p.place, p.what), '{}') from (
      select concat_ws(' ', r.oid, a.attnum), concat_ws(' ', r.relfilenode, r.relname, a.attname)
        from unnest(relations) h(oid)
       cross join lateral (select oid, relfilenode, relname from pg_class where oid = h.oid and relkind in ('r', 'p', 'S') offset 0) r
        left join lateral (select attnum, attname from pg_attribute where attrelid = r.oid and attnum > 0 and not attisdropped offset 0) a on true
      union all
      select concat_ws(' ', 'view', v.relname), ''
        from unnest(relations) h(oid) cross join lateral (select relname from pg_class where oid = h.oid and relkind = 'v' offset 0) v
      union all
      select concat_ws(' ', 'constraint', h.oid, c.conname), ''
        from unnest(relations) h(oid) cross join lateral (select conname from pg_constraint where conrelid = h.oid offset 0) c
      union all
      select concat_ws(' ', 'trigger', h.oid, g.tgname), ''
        from unnest(relations) h(oid) cross join lateral (select tgname from pg_trigger where tgrelid = h.oid and not tgisinternal offset 0) g) p(place, what));
end
$$;

-- A home's own functions.
create or replace function tenancy.functions_in(home_schema name) returns oid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
  return array(
    select d.objid from pg_depend d
     where d.refclassid = 'pg_namespace'::regclass and d.refobjid = to_regnamespace(quote_ident(home_schema)) and d.classid = 'pg_proc'::regclass);
end
$$;

-- What has changed tables in one tenant's turn. It changed them for all: that tenant's rows may have said so (`if not exists (select …)`),
-- or been put into the text of what it runs. What is added, and is the same whoever's turn it is, is nobody's.
create or replace function tenancy.audit_turn(statement text, home_schema name, places jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  now_at constant jsonb := tenancy.places_of_rows(home_schema);
  functions constant oid[] := tenancy.functions_in(home_schema);
  -- Any EXECUTE but of one constant, in quotes, in the quotes of a block in quotes, or in dollars.
  puts_together constant text := '\mexecute\M(?!\s+(function|procedure)\M)(?!\s*(''([^'']|'''')*''|''''[^'']*''''|\$\w*\$[^$]*\$\w*\$)\s*(;|using\M|into\M))';
begin
  if exists (select from jsonb_each_text(places) p where p.value is distinct from now_at ->> p.key) then
    raise exception 'something that all share is dropped, emptied, renamed or rewritten in one tenant''s turn' using errcode = 'TN012';
  end if;
  if statement ~* puts_together
    or exists (select from pg_proc p where p.oid = any (functions) and p.prosrc ~* puts_together) then
    raise exception 'a text that is put together changes what all share, in one tenant''s turn' using errcode = 'TN012';
  end if;
end
$$;

-- Whether plans may hold an answer of one of these functions: one that is called IMMUTABLE is computed when they are made. One that neither
-- has statements nor names another knows nothing of rows, and plans are kept: to make them anew costs more than most turns.
create or replace function tenancy.may_keep_answers(functions oid[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
  return exists (
    with function as materialized (select p.oid, p.proname, p.prosrc, p.provolatile from pg_proc p where p.oid = any (functions))
    select from function f
     where f.provolatile = 'i'
       and (tenancy.has_statements(f.oid)
         or exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = f.oid and d.refclassid = 'pg_proc'::regclass)
         or exists (select from function other where other.oid <> f.oid and strpos(lower(f.prosrc), lower(other.proname)) > 0)));
end
$$;

-- Cursors and prepared statements but these: what a turn has left, whose rows or text may hold a value. The migrator's own cursor sees
-- what the file deletes.
create or replace function tenancy.forget_all_but(cursors text[], prepared text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  forgets text;
begin
  foreach forgets in array array(
    select format('close %I', c.name) from pg_cursors c where c.name <> all (cursors)
    union all
    select format('deallocate %I', p.name) from pg_prepared_statements p where p.name <> all (prepared))
  loop
    execute forgets;
  end loop;
end
$$;

-- Settings of their own that these functions write: `set_config('app.last', …)`, or `'set app.last = …'` behind EXECUTE. What one
-- tenant's turn leaves there is the next one's.
create or replace function tenancy.settings_kept(functions oid[]) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return array(
    select distinct lower(m.name[1])
      from pg_proc p
     cross join lateral regexp_matches(p.prosrc, '(?:set_config\s*\(\s*''|''\s*set\s+(?:(?:local|session)\s+)?)(?!tenancy\.)([a-z_]\w*(?:\.[a-z_]\w*)+)', 'gi') m(name)
     where p.oid = any (functions));
end
$$;

create or replace function tenancy.values_of(settings text[]) returns text[]
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select array(select coalesce(current_setting(s, true), '') from unnest(settings) with ordinality u(s, place) order by place)
$$;

create or replace function tenancy.set_again(settings text[], kept text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select set_config(u.name, u.value, true) from unnest(settings, kept) u(name, value) where coalesce(current_setting(u.name, true), '') <> u.value
$$;

-- Whether one of these functions sets a sequence, and the statement has its name.
create or replace function tenancy.sets_sequences(statement text, functions oid[]) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return exists (
    select from pg_proc p
     where p.oid = any (functions) and p.prosrc ~* '\msetval\M' and strpos(lower(statement), lower(p.proname)) > 0);
end
$$;

grant execute on function tenancy.tenants_in(name), tenancy.prepare_tables(name, boolean, boolean), tenancy.undo_policies(name), tenancy.rows_without_tenant(name),
  tenancy.deferred_triggers(name), tenancy.policies_made(), tenancy.catalogs_changed(), tenancy.places_of_rows(name), tenancy.functions_in(name),
  tenancy.audit_turn(text, name, jsonb), tenancy.may_keep_answers(oid[]), tenancy.forget_all_but(text[], text[]), tenancy.settings_kept(oid[]),
  tenancy.values_of(text[]), tenancy.set_again(text[], text[]), tenancy.sets_sequences(text, oid[]) to tenancy_owner;
