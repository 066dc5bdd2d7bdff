-- Where a migration's statements run, and what they have done beyond their homes that only a look at the time before them shows.
-- Run as tenancy_keeper.

-- In a SECURITY DEFINER procedure PostgreSQL refuses SET ROLE, SET SESSION AUTHORIZATION and COMMIT, in whatever it runs: DO
-- blocks, functions and triggers too. The session's own login could be any role of the product. No SET clause: what a file sets
-- is for its later statements. It must be its user's; a file that alters it is refused below.
grant create on schema tenancy to tenancy_owner;
select set_config('role', 'tenancy_owner', true);
create procedure tenancy.run_statement(statement text)
language plpgsql security definer as $$
begin
  execute statement;
end
$$;
revoke all on procedure tenancy.run_statement(text) from public;
select set_config('role', 'tenancy_keeper', true);
revoke create on schema tenancy from tenancy_owner;

-- After a file, where the cursor `tenancy_before` was opened before it: that sees rows which the file has deleted or replaced.
-- It is asked only about what the transaction has locked, because of its number of rows. Every row is a finding.
create function tenancy.audit_traces(home_schemas name[])
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  here constant oid := (select d.oid from pg_database d where d.datname = current_database());
  homes constant oid[] := array(select to_regnamespace(quote_ident(h))::oid from unnest(home_schemas) h);
  before refcursor := 'tenancy_before';
  was_in oid;
  was_named name;
  written record;
begin
  home_schema := home_schemas[1];
  perform set_config('tenancy.locked', (
    select concat_ws('|', coalesce(array_agg(l.relation) filter (where l.locktype = 'relation'), '{}'),
             coalesce(array_agg(l.objid) filter (where l.classid = 'pg_proc'::regclass), '{}'),
             coalesce(array_agg(l.objid) filter (where l.classid = 'pg_type'::regclass), '{}'))
      from pg_locks l
     where l.pid = pg_backend_pid() and l.database = here and l.locktype in ('relation', 'object')
       and l.mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')), true);
  -- The first row tells that nobody has read from it; another one of this name began with the file's own text.
  if exists (select from pg_cursors c where c.name = before::text and c.creation_time < statement_timestamp()) then
    fetch before into was_in, was_named;
  end if;
  if was_in is distinct from 0 then
    return query select home_schemas[1], before::text, 'is the migrator''s own, and the file uses it', 'leave it alone';
    return;
  end if;
  loop
    fetch before into was_in, was_named;
    exit when not found;
    -- The server's own are locked by what reads them, and changed by nobody. Of a schema that is gone audit_strays tells.
    return query select home_schemas[1], format('%I.%I', n.nspname, was_named), 'is not of the home, and the file changes or drops it', 'write names without a schema'
      from pg_namespace n where n.oid = was_in and n.oid <> all (homes) and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast');
  end loop;
  close before;

  -- Functions are replaced and altered without a lock.
  if pg_stat_get_xact_tuples_inserted('pg_proc'::regclass) + pg_stat_get_xact_tuples_updated('pg_proc'::regclass) > 0 then
    return query
    select home_schemas[1], p.oid::regprocedure::text, 'is not of the home, and the file makes or changes it', 'write names without a schema'
      from pg_proc p
     where age(p.xmin) <= 0 and p.pronamespace <> all (homes)
       and pg_xact_status((pg_current_xact_id()::text::numeric - age(p.xmin))::text::xid8) = 'in progress';
  end if;

  -- What would run at the transaction's end, or when the migrator next reads a history, would run outside the fence.
  return query
  select home_schemas[1], c.name, 'is a cursor that is read when the file has ended', 'declare it without `with hold`' from pg_cursors c where c.is_holdable
  union all
  select h, format('%I._migrations', h), 'is the migrator''s own, and the file changes it', 'leave it alone'
    from unnest(home_schemas) h
    left join pg_class c on c.relname = '_migrations' and c.relnamespace = to_regnamespace(quote_ident(h))
   where c.oid is null or c.relkind <> 'r' or c.relhastriggers or c.relhasrules or c.relrowsecurity or c.relchecks > 0 or c.relnatts <> 3
      or (select count(*) from pg_index i where i.indrelid = c.oid) <> 1
      or exists (select from pg_attrdef d where d.adrelid = c.oid and pg_get_expr(d.adbin, d.adrelid) <> 'now()');
  for written in
    select distinct l.relation::regclass as relation
      from pg_locks l
      join pg_trigger t on t.tgrelid = l.relation
      join pg_proc p on p.oid = t.tgfoid
      left join pg_index i on i.indexrelid = t.tgconstrindid
     where l.pid = pg_backend_pid() and l.database = here and l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
       and t.tgdeferrable and (p.prolang <> (select oid from pg_language where lanname = 'internal') or i.indexprs is not null or i.indpred is not null)
  loop
    -- Changes nothing. PostgreSQL refuses it where a trigger of the table is still to fire, which nothing else tells.
    begin
      execute format('alter table %s owner to tenancy_owner', written.relation);
    exception when object_in_use then
      return query select home_schemas[1], written.relation::text, 'has triggers that fire when the file has ended',
        'leave `set constraints` out of functions';
    end;
  end loop;
end
$$;

grant execute on function tenancy.audit_traces(name[]) to tenancy_owner;
