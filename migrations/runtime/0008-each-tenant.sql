-- A migration's statements in the tables that tenants share: what they must not carry from one tenant to another. Run as
-- tenancy_keeper.

-- Has no rows: how often it was read tells how often rows were refused, also where that error was caught.
create table tenancy.refusals ();

-- Whose rows the owner's maintenance policy lets a migration or move touch: see 0003. The server's own check of a foreign key (it is
-- added, validated, or a column of it gets another type) asks for all, and nothing that runs beside it: an ALTER TABLE may compute columns
-- and checks too, by functions that look rows up. The stack says who asks, whatever the server's language: its second line is that
-- statement, and the third is the one that the check is for, not a function with a query like it.
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
  if split_part(stack, E'\n', 2) ~ '^[^"]*.SELECT fk\."' and split_part(stack, E'\n', 3) !~ '^[^"]*PL/pgSQL' then
    return array(select h.tenant_id from tenancy.homes h);
  elsif coalesce(asked, '') = '' then
    perform from tenancy.refusals;
    raise exception 'rows of tenants are reached for none of them' using errcode = 'TN011';
  end if;
  return array[asked::uuid];
end
$$;

-- What a file has made, or opened, is for its next statement like what was there: the default of tenant_id, and in shared tables the
-- wall, come before rows do, the rest of its protection at the file's end. `in_turns`: a statement runs for one tenant after the other.
create function tenancy.prepare_tables(home_schema name, shared boolean, in_turns boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  maintained constant text := 'tenant_id = any ((select tenancy.maintained_tenants())::uuid[])';
  item record;
begin
  for item in
    select r.*, t.attnum is not null as has_tenant, coalesce(t.atthasdef, false) as has_default,
           exists (select from pg_policy p where p.polrelid = r.oid and p.polname = 'tenancy_maintenance' offset 0) as has_policy
      from unnest(tenancy.home_relations(array[home_schema])) h(oid)
     cross join lateral (
           select oid, oid::regclass as name, relkind as kind, relrowsecurity and relforcerowsecurity as has_wall from pg_class
            where oid = h.oid and relkind in ('r', 'p', 'm') and relname <> '_migrations' offset 0) r
      left join lateral (
           select attnum, atthasdef from pg_attribute
            where attrelid = r.oid and attname = 'tenant_id' and atttypid = 'uuid'::regtype and not attisdropped offset 0) t on true
  loop
    if item.kind = 'm' then
      if in_turns then
        raise exception '% would carry rows from one tenant to the next', item.name using errcode = 'TN012';
      end if;
    elsif item.has_tenant then
      if not item.has_default then
        execute format('alter table %s alter column tenant_id set default nullif(current_setting(''tenancy.tenant'', true), '''')::uuid', item.name);
      end if;
      if shared and not item.has_wall then
        execute format('alter table %s enable row level security, force row level security', item.name);
      end if;
      if shared and not item.has_policy then
        execute format('create policy tenancy_maintenance on %s to tenancy_owner using (%s) with check (%s)', item.name, maintained, maintained);
      end if;
    end if;
  end loop;
end
$$;

-- How many rows of tables without tenant_id were written: what one tenant's turn leaves there, the next one's finds, also where the file
-- drops the table again. Those for every tenant to read are looked at when the file has ended.
create function tenancy.rows_without_tenant(home_schema name) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select coalesce(sum(tenancy.rows_changed(r.oid)), 0)
      from unnest(tenancy.home_relations(array[home_schema])) h(oid)
     cross join lateral (select oid from pg_class where oid = h.oid and relkind in ('r', 'p') and relname <> '_migrations' offset 0) r
     where not exists (
           select from pg_attribute where attrelid = r.oid and attname = 'tenant_id' and atttypid = 'uuid'::regtype and not attisdropped)
       and not tenancy.is_reference(r.oid, false, 'tenancy_app'));
end
$$;

-- Triggers of a home's own that wait for the transaction's end. They would fire there for nobody, or in the turn of whoever lets them:
-- with one tenant's row among another's.
create function tenancy.deferred_triggers(home_schema name) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select string_agg(distinct format('%I.%I', home_schema, c.conname), ', ')
    from unnest(tenancy.home_relations(array[home_schema])) h(oid) join pg_constraint c on c.conrelid = h.oid
   where c.contype = 't' and c.condeferred
$$;
grant execute on function tenancy.prepare_tables(name, boolean, boolean), tenancy.rows_without_tenant(name), tenancy.deferred_triggers(name) to tenancy_owner;

grant create on schema tenancy to tenancy_owner;
select set_config('role', 'tenancy_owner', true);
drop procedure tenancy.run_for_all(text);
-- For nobody: what reaches rows fails, also where its error is caught, and the rest of a block would be taken for done.
create procedure tenancy.run_for_nobody(statement text, home_schema name)
language plpgsql security definer as $$
declare
  refused constant bigint := pg_catalog.pg_stat_get_xact_numscans('tenancy.refusals'::pg_catalog.regclass);
begin
  perform tenancy.prepare_tables(home_schema, true, false);
  execute statement;
  if pg_catalog.pg_stat_get_xact_numscans('tenancy.refusals'::pg_catalog.regclass) operator(pg_catalog.>) refused then
    raise exception 'rows of tenants are reached for none of them' using errcode = 'TN011';
  end if;
end
$$;
create procedure tenancy.fire_triggers(deferred text)
language plpgsql security definer as $$
begin
  execute pg_catalog.concat('set constraints ', deferred, ' immediate');
  execute pg_catalog.concat('set constraints ', deferred, ' deferred');
end
$$;
create or replace procedure tenancy.run_for_each(statement text, home_schema name)
language plpgsql security definer as $$
declare
  deferred constant text := tenancy.deferred_triggers(home_schema);
  written constant bigint := tenancy.rows_without_tenant(home_schema);
  tenant text;
  made bigint;
begin
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
create or replace procedure tenancy.run_for_each_if_needed(statement text, home_schema name)
language plpgsql security definer as $$
begin
  call tenancy.run_for_nobody(statement, home_schema);
exception when sqlstate 'TN011' then
  call tenancy.run_for_each(statement, home_schema);
end
$$;
revoke all on procedure tenancy.run_for_nobody(text, name), tenancy.fire_triggers(text) from public;
select set_config('role', 'tenancy_keeper', true);
revoke create on schema tenancy from tenancy_owner;
