-- What still carried one tenant's rows to another in a migration of the tables that they share, and two defaults that a login may
-- change for all who call by it, and row security that hid a tenant's own tables from itself. Run as tenancy_keeper.

-- See 0008. The server's own check of a foreign key is one line, whatever it checks: by no more than how it begins, a query of a
-- DO block was taken for it whose line ended there.
create or replace function tenancy.maintained_tenants() returns uuid[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  context text := current_setting('tenancy.context', true);
  part text[] := string_to_array(context, '.');
  asked text := current_setting('tenancy.maintained', true);
  stack text;
begin
  perform from tenancy.keys k
   where k.key_id = part[2] and k.database_id::text = part[3] and tenancy.signed(context, k.inner_pad, k.outer_pad);
  if not found or part[7] not in ('migrate', 'move') or part[9]::bigint < extract(epoch from now()) then
    perform tenancy.refuse(context);
  end if;
  if part[4]::uuid <> '00000000-0000-0000-0000-000000000000' then
    return array[part[4]::uuid];
  end if;
  get diagnostics stack = pg_context;
  if split_part(stack, E'\n', 2) ~ '^[^"]*.SELECT fk\.".* LEFT OUTER JOIN .* pk ON \( pk\."' and split_part(stack, E'\n', 3) !~ '^[^"]*PL/pgSQL' then
    return array(select h.tenant_id from tenancy.homes h);
  elsif coalesce(asked, '') = '' then
    perform from tenancy.refusals;
    raise exception 'rows of tenants are reached for none of them' using errcode = 'TN011';
  end if;
  return array[asked::uuid];
end
$$;

-- Files as ORMs write them switch row security on. In a tenant's own tables nobody makes policies for it, and without one its login
-- would find no row there any more. Where a file has made policies it is the adopting team's own.
create function tenancy.open_owned(home_schemas name[], relations oid[]) returns void
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
grant execute on function tenancy.open_owned(name[], oid[]) to tenancy_owner;

-- See 0008. And policies of a file's own, and keys.
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
                   where p.polrelid = r.oid and p.polname not in ('tenancy_guard', 'tenancy_rows', 'tenancy_maintenance')
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

-- See 0008. A setting keeps what one tenant's turn has left in it for the next one, and for the file's next statement.
grant create on schema tenancy to tenancy_owner;
select set_config('role', 'tenancy_owner', true);
create or replace procedure tenancy.run_for_each(statement text, home_schema name)
language plpgsql security definer as $$
declare
  deferred constant text := tenancy.deferred_triggers(home_schema);
  written constant bigint := tenancy.rows_without_tenant(home_schema);
  tenant text;
  made bigint;
begin
  if statement operator(pg_catalog.~*) '\mset_config\M' then
    raise exception 'set_config runs for one tenant after the other' using errcode = 'TN012';
  end if;
  perform tenancy.prepare_tables(home_schema, true, true);
  made := tenancy.rows_changed('pg_catalog.pg_class'::pg_catalog.regclass);
  foreach tenant in array tenancy.tenants_in(home_schema) loop
    -- One that has put itself off in its own tenant's turn is for nobody.
    if deferred is not null then
      call tenancy.fire_triggers(deferred);
    end if;
    perform pg_catalog.set_config('tenancy.maintained', tenant, true), pg_catalog.set_config('tenancy.tenant', tenant, true);
    execute statement;
    if deferred is not null then
      call tenancy.fire_triggers(deferred);
    end if;
    perform pg_catalog.set_config('tenancy.maintained', '', true), pg_catalog.set_config('tenancy.tenant', '', true);
    if tenancy.rows_changed('pg_catalog.pg_class'::pg_catalog.regclass) operator(pg_catalog.<>) made then
      perform tenancy.prepare_tables(home_schema, true, true);
      made := tenancy.rows_changed('pg_catalog.pg_class'::pg_catalog.regclass);
    end if;
  end loop;
  if tenancy.rows_without_tenant(home_schema) operator(pg_catalog.>) written then
    raise exception 'rows are written for one tenant after the other into a table without tenant_id' using errcode = 'TN012';
  end if;
end
$$;
select set_config('role', 'tenancy_keeper', true);
revoke create on schema tenancy from tenancy_owner;

-- See 0002. How XML shows bytes, and how names are quoted.
create or replace function tenancy.open_home(context text) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  path text;
  accepted uuid;
  lock bigint;
  set_to text;
  verified record;
begin
  if split_part(context, '.', 6) = 'w' then
    select h.tenant_id, h.lock_key into accepted, lock from tenancy.homes h
     where h.login = session_user and h.tenant_id = (
       select concat(split_part(context, '.', 4))::uuid from tenancy.keys k
        where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad));
  else
    set local transaction_read_only = on;
  end if;
  -- The lock in a statement of its own, before the one that reads the home: see `verify`.
  if accepted is null or pg_try_advisory_xact_lock_shared(lock) then
    -- A key is this database's alone: its signature says that the context is for here. Nothing of a context is cast before
    -- its signature holds: the cast stands in the answer of the query that has checked it (behind concat, which is STABLE:
    -- the planner computes ahead what is IMMUTABLE), and all else is compared as text, the time too (ten digits until 2286).
    -- Nothing is set unless there is a row: what stands in its answer is computed for what the conditions have let through.
    select concat(quote_ident(h.schema_name), ', extensions, pg_temp'),
           set_config('tenancy.tenant', h.tenant_id::text, true),
           set_config('tenancy.pass', tenancy.pass(h.tenant_id::text), true),
           set_config('tenancy.capture', case when h.capturing then '1' else '' end, true),
           set_config('statement_timeout', split_part(context, '.', 8), true)
      into path, set_to, set_to, set_to, set_to
      from tenancy.homes h
     where h.login = session_user and h.tenant_id = coalesce(accepted, (
       select concat(split_part(context, '.', 4))::uuid from tenancy.keys k
        where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad)))
       -- Only at one place of a context can its parts follow each other so: epoch, mode, purpose.
       and h.state = 'open'
       and strpos(context, concat('.', h.epoch, case when accepted is null then '.r.call.' else '.w.call.' end)) > 0
       and split_part(context, '.', 9) >= extract(epoch from now())::text collate "C"
       and current_setting('transaction_isolation') = 'read committed';
  end if;
  if path is null then
    verified := tenancy.verify(context);
    path := concat(quote_ident(verified.home_schema), ', extensions, pg_temp');
    perform set_config('tenancy.tenant', verified.tenant::text, true),
            set_config('tenancy.pass', tenancy.pass(verified.tenant::text), true),
            set_config('tenancy.capture', case when verified.capturing then '1' else '' end, true),
            set_config('statement_timeout', split_part(context, '.', 8), true);
  end if;

  perform pg_advisory_unlock_all();
  set local lock_timeout = '5s';
  set local timezone = 'UTC';
  -- RESET ALL goes back to the login's own defaults, which a login may change: these change answers.
  if concat_ws('|', current_setting('datestyle'), current_setting('intervalstyle'), current_setting('bytea_output'),
       current_setting('transform_null_equals'), current_setting('row_security'), current_setting('gin_fuzzy_search_limit'),
       current_setting('standard_conforming_strings'), current_setting('array_nulls'), current_setting('extra_float_digits'),
       current_setting('xmloption'), current_setting('timezone_abbreviations'), current_setting('log_parameter_max_length_on_error'),
       current_setting('debug_print_plan'), current_setting('xmlbinary'), current_setting('quote_all_identifiers'),
       current_setting('synchronous_commit')) <> 'ISO, MDY|postgres|hex|off|on|0|on|on|1|content|Default|0|off|base64|off|on' then
    set local datestyle = 'ISO, MDY';
    set local intervalstyle = 'postgres';
    set local bytea_output = 'hex';
    set local transform_null_equals = off;
    set local row_security = on;
    set local gin_fuzzy_search_limit = 0;
    set local standard_conforming_strings = on;
    set local array_nulls = on;
    set local extra_float_digits = 1;
    set local xmloption = content;
    set local timezone_abbreviations = 'Default';
    set local log_parameter_max_length_on_error = 0;
    set local debug_print_plan = off;
    set local xmlbinary = base64;
    set local quote_all_identifiers = off;
    if current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
      set local synchronous_commit = on;
    end if;
  end if;
  return path;
end
$$;

-- See 0004 and 0006.
create or replace function tenancy.protect_homes(home_schemas name[], tenants uuid[], logins name[], shared boolean) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tenancy.open_owned(home_schemas, tenancy.home_relations(home_schemas)) where not shared;
  select tenancy.protect_relations(home_schemas, tenants, logins, shared, tenancy.home_relations(home_schemas))
$$;
create or replace function tenancy.complete_changes(home_schemas name[], tenants uuid[], logins name[], shared boolean)
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  relations constant oid[] := tenancy.changed_relations(home_schemas);
begin
  if not shared then
    perform tenancy.open_owned(home_schemas, relations);
  end if;
  perform tenancy.protect_relations(home_schemas, tenants, logins, shared, relations);
  return query select * from tenancy.audit_relations(home_schemas, tenants, logins, shared, relations);
  return query select * from tenancy.audit_reach(home_schemas, logins, relations);
  return query select * from tenancy.audit_strays(home_schemas);
end
$$;
