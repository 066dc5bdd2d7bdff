-- How a migration's statements run in the tables that tenants share. As the owner's procedures, like `run_statement`. Run as
-- tenancy_keeper.

grant create on schema tenancy to tenancy_owner;
select set_config('role', 'tenancy_owner', true);
-- Of the first releases: it reached all tenants at once.
drop procedure if exists tenancy.run_for_all(text);

create or replace procedure tenancy.fire_triggers(deferred text)
language plpgsql security definer as $$
begin
  execute pg_catalog.concat('set constraints ', deferred, ' immediate');
  execute pg_catalog.concat('set constraints ', deferred, ' deferred');
end
$$;

-- For nobody: what reaches rows fails, also where its error is caught, and the rest of a block would be taken for done. Nor may it
-- make policies, which would show rows from then on. What computes columns, checks or indexes of everybody's rows runs functions that may
-- write them down.
create or replace procedure tenancy.run_for_nobody(statement text, home_schema name)
language plpgsql security definer as $$
declare
  refused constant bigint := pg_catalog.pg_stat_get_xact_numscans('tenancy.refusals'::pg_catalog.regclass);
  computes constant boolean := statement operator(pg_catalog.~*) '\m(alter|index|analyze|reindex|cluster)\M';
  written bigint;
  policies bigint;
begin
  perform tenancy.prepare_tables(home_schema, true, false);
  if computes then
    written := tenancy.rows_without_tenant(home_schema);
  end if;
  policies := tenancy.policies_made();
  execute statement;
  if pg_catalog.pg_stat_get_xact_numscans('tenancy.refusals'::pg_catalog.regclass) operator(pg_catalog.>) refused then
    raise exception 'rows of tenants are reached for none of them' using errcode = 'TN011';
  end if;
  if tenancy.policies_made() operator(pg_catalog.>) policies then
    if statement operator(pg_catalog.!~*) '^\s*(create|alter)\s+policy\M' then
      raise exception 'policies are made in a block or function' using errcode = 'TN012';
    end if;
    perform tenancy.undo_policies(home_schema);
  end if;
  if computes and tenancy.rows_without_tenant(home_schema) operator(pg_catalog.>) written then
    raise exception 'rows are written while those of all tenants are computed, into a table without tenant_id' using errcode = 'TN012';
  end if;
end
$$;

-- In the shared tables: once for each tenant that lives there, as that tenant. In a home that nobody lives in, once. A
-- sequence is over all tenants: set by the rows of one, it repeats the numbers of others. And nothing that a turn leaves in the session goes
-- into the next one: plans with answers in them, cursors, prepared statements, settings that functions write.
create or replace procedure tenancy.run_for_each(statement text, home_schema name)
language plpgsql security definer as $$
declare
  deferred constant text := tenancy.deferred_triggers(home_schema);
  written constant bigint := tenancy.rows_without_tenant(home_schema);
  cursors constant text[] := array(select c.name from pg_catalog.pg_cursors c);
  prepared constant text[] := array(select p.name from pg_catalog.pg_prepared_statements p);
  functions constant pg_catalog.oid[] := tenancy.functions_in(home_schema);
  keeps_answers constant boolean := tenancy.may_keep_answers(functions);
  settings constant text[] := tenancy.settings_kept(functions);
  kept constant text[] := tenancy.values_of(settings);
  tenant text;
  places jsonb;
  made bigint;
  policies bigint;
begin
  if statement operator(pg_catalog.~*) '\mset_config\M|''\s*set\s+((local|session)\s+)?[a-z_]\w*\.' then
    raise exception 'set_config runs for one tenant after the other' using errcode = 'TN012';
  end if;
  if statement operator(pg_catalog.~*) '\msetval\M' or tenancy.sets_sequences(statement, functions) then
    raise exception 'setval runs for one tenant after the other' using errcode = 'TN012';
  end if;
  -- What an ALTER TABLE fails by quotes anybody's rows.
  if statement operator(pg_catalog.~*) '\m(sqlerrm|stacked)\M' and statement operator(pg_catalog.~*) '\m(alter|create|execute)\M' then
    raise exception 'an error that may quote all rows is kept in one tenant''s turn' using errcode = 'TN012';
  end if;
  perform tenancy.prepare_tables(home_schema, true, true);
  places := tenancy.places_of_rows(home_schema);
  policies := tenancy.policies_made();
  made := tenancy.catalogs_changed();
  foreach tenant in array tenancy.tenants_in(home_schema) loop
    -- One that has put itself off in its own tenant's turn is for nobody.
    if deferred is not null then
      call tenancy.fire_triggers(deferred);
    end if;
    if keeps_answers then
      discard plans;
    end if;
    perform pg_catalog.set_config('tenancy.maintained', tenant, true), pg_catalog.set_config('tenancy.tenant', tenant, true);
    execute statement;
    if deferred is not null then
      call tenancy.fire_triggers(deferred);
    end if;
    perform pg_catalog.set_config('tenancy.maintained', '', true), pg_catalog.set_config('tenancy.tenant', '', true);
    if settings operator(pg_catalog.<>) '{}' then
      perform tenancy.set_again(settings, kept);
    end if;
    if exists (select from pg_catalog.pg_cursors c where c.name operator(pg_catalog.<>) all (cursors))
      or exists (select from pg_catalog.pg_prepared_statements p where p.name operator(pg_catalog.<>) all (prepared)) then
      perform tenancy.forget_all_but(cursors, prepared);
    end if;
    if tenancy.catalogs_changed() operator(pg_catalog.<>) made then
      if tenancy.policies_made() operator(pg_catalog.>) policies then
        raise exception 'policies are made in a block or function' using errcode = 'TN012';
      end if;
      perform tenancy.audit_turn(statement, home_schema, places);
      perform tenancy.prepare_tables(home_schema, true, true);
      places := tenancy.places_of_rows(home_schema);
      policies := tenancy.policies_made();
      made := tenancy.catalogs_changed();
    end if;
  end loop;
  if tenancy.rows_without_tenant(home_schema) operator(pg_catalog.>) written then
    raise exception 'rows are written for one tenant after the other into a table without tenant_id' using errcode = 'TN012';
  end if;
end
$$;

-- What may be about rows, or about what is there once for all: if it turns out to reach rows, for each tenant.
create or replace procedure tenancy.run_for_each_if_needed(statement text, home_schema name)
language plpgsql security definer as $$
begin
  call tenancy.run_for_nobody(statement, home_schema);
exception when sqlstate 'TN011' then
  call tenancy.run_for_each(statement, home_schema);
end
$$;

revoke all on procedure tenancy.fire_triggers(text), tenancy.run_for_nobody(text, name), tenancy.run_for_each(text, name),
  tenancy.run_for_each_if_needed(text, name) from public;
select set_config('role', 'tenancy_keeper', true);
revoke create on schema tenancy from tenancy_owner;
