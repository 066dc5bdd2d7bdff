-- A migration's statements in the tables that tenants share: what they must not carry from one tenant to another. Run as
-- tenancy_keeper.

-- Whose rows the owner's maintenance policy lets a migration or move touch: see 0003. For all of them asks one statement alone, the
-- server's own check of a foreign key that is added or validated: an ALTER TABLE may compute columns and checks too, by functions
-- that look rows up. The stack says who asks; its second line is that statement, whatever the server's language.
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
  elsif asked = 'all' then
    get diagnostics stack = pg_context;
    if split_part(stack, E'\n', 2) ~ '^[^"]*.SELECT fk\."' then
      return array(select h.tenant_id from tenancy.homes h);
    end if;
    asked := '';
  end if;
  if coalesce(asked, '') = '' then
    raise exception 'rows of tenants are reached for none of them' using errcode = 'TN011';
  end if;
  return array[asked::uuid];
end
$$;

-- What a file has made, or opened, gets its wall before rows come into it: the rest of its protection comes at the file's end. A table
-- that can have none would carry rows from one tenant's turn into the next, also where the file drops it again. `in_turns`: rows come.
create function tenancy.wall_tables(home_schema name, in_turns boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  maintained constant text := 'tenant_id = any ((select tenancy.maintained_tenants())::uuid[])';
  item record;
begin
  for item in
    select c.oid::regclass as name, c.relkind as kind, t.attnum is not null as has_tenant,
           exists (select from pg_policy p where p.polrelid = c.oid and p.polname = 'tenancy_maintenance') as has_policy
      from unnest(tenancy.home_relations(array[home_schema])) h(oid)
     cross join lateral (
           select oid, relkind from pg_class
            where oid = h.oid and relkind in ('r', 'p', 'm') and relname <> '_migrations' and not (relrowsecurity and relforcerowsecurity) offset 0) c
      left join pg_attribute t on t.attrelid = c.oid and t.attname = 'tenant_id' and t.atttypid = 'uuid'::regtype and not t.attisdropped
     where not tenancy.is_reference(c.oid, t.attnum is not null, 'tenancy_app')
  loop
    if item.has_tenant and item.kind <> 'm' then
      execute format('alter table %s enable row level security, force row level security', item.name);
      if not item.has_policy then
        execute format('create policy tenancy_maintenance on %s to tenancy_owner using (%s) with check (%s)', item.name, maintained, maintained);
      end if;
    elsif in_turns then
      raise exception '% would carry rows from one tenant to the next', item.name using errcode = 'TN012';
    end if;
  end loop;
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
grant execute on function tenancy.wall_tables(name, boolean), tenancy.deferred_triggers(name) to tenancy_owner;

grant create on schema tenancy to tenancy_owner;
select set_config('role', 'tenancy_owner', true);
-- For nobody: what reaches rows fails, also where its error is caught, and the rest of a block would be taken for done.
create procedure tenancy.run_for_nobody(statement text, home_schema name)
language plpgsql security definer as $$
declare
  -- Whoever is asked for rows reads the keys first.
  asked constant bigint := pg_catalog.pg_stat_get_xact_blocks_fetched('tenancy.keys'::pg_catalog.regclass);
begin
  perform tenancy.wall_tables(home_schema, false);
  execute statement;
  if pg_catalog.pg_stat_get_xact_blocks_fetched('tenancy.keys'::pg_catalog.regclass) operator(pg_catalog.>) asked then
    raise exception 'rows of tenants are reached for none of them' using errcode = 'TN011';
  end if;
end
$$;
create procedure tenancy.fire_triggers(deferred text)
language plpgsql security definer as $$
begin
  if deferred is not null then
    execute pg_catalog.concat('set constraints ', deferred, ' immediate');
    execute pg_catalog.concat('set constraints ', deferred, ' deferred');
  end if;
end
$$;
create or replace procedure tenancy.run_for_each(statement text, home_schema name)
language plpgsql security definer as $$
declare
  deferred constant text := tenancy.deferred_triggers(home_schema);
  tenant text;
  made bigint;
begin
  perform tenancy.wall_tables(home_schema, true);
  foreach tenant in array tenancy.tenants_in(home_schema) loop
    -- One that has put itself off in its own tenant's turn is for nobody.
    call tenancy.fire_triggers(deferred);
    made := tenancy.rows_changed('pg_catalog.pg_class'::pg_catalog.regclass);
    perform pg_catalog.set_config('tenancy.maintained', tenant, true), pg_catalog.set_config('tenancy.tenant', tenant, true);
    execute statement;
    call tenancy.fire_triggers(deferred);
    perform pg_catalog.set_config('tenancy.maintained', '', true), pg_catalog.set_config('tenancy.tenant', '', true);
    if tenancy.rows_changed('pg_catalog.pg_class'::pg_catalog.regclass) operator(pg_catalog.<>) made then
      perform tenancy.wall_tables(home_schema, true);
    end if;
  end loop;
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
