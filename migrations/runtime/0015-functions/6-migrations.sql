-- A migration's own transaction: where its statements run, and what it has done. Run as tenancy_keeper.

-- In a SECURITY DEFINER procedure PostgreSQL refuses SET ROLE, SET SESSION AUTHORIZATION and COMMIT, in whatever it runs: DO
-- blocks, functions and triggers too. The session's own login could be any role of the product. No SET clause: what a file sets
-- is for its later statements. It must be its user's; a file that alters it is refused below.
grant create on schema tenancy to tenancy_owner;
select set_config('role', 'tenancy_owner', true);
create or replace procedure tenancy.run_statement(statement text)
language plpgsql security definer as $$
begin
  execute statement;
end
$$;
revoke all on procedure tenancy.run_statement(text) from public;
select set_config('role', 'tenancy_keeper', true);
revoke create on schema tenancy from tenancy_owner;

-- What the transaction has read, written, made or changed outside these homes: tables by the locks that it holds until its end; the
-- rest by the version of rows: one that is seen, and not committed, is this transaction's own. Others make schemas meanwhile. What the
-- server keeps of everybody's rows is in its catalogs: nobody but a file reads its statistics as a table. A role that may make schemas may
-- install extensions that PostgreSQL trusts, into the first schema of its path: what such a one does past the walls is nobody's to see there,
-- it goes with that home, and no other finds it. Large objects belong to no home: they are counted, as the server does.
create or replace function tenancy.audit_strays(home_schemas name[])
returns table (home_schema name, object text, finding text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp set jit = off as $$
  with held as materialized (
    select l.relation, l.classid, l.objid, l.mode from pg_locks l
     where l.pid = pg_backend_pid() and l.locktype in ('relation', 'object') and l.database = (select oid from pg_database where datname = current_database())
  )
  select home_schemas[1], c.oid::regclass::text, 'is not of the home, and the file reads, writes or makes it', 'write names without a schema'
    from held l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
     and n.nspname <> all (home_schemas) and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'tenancy', 'extensions')
   group by c.oid
  union all
  -- Captured changes are written by the home's own triggers.
  select home_schemas[1], c.oid::regclass::text, 'is the product''s own, and the file changes it', 'leave it to the product'
    from held l join pg_class c on c.oid = l.relation
   where l.mode not in ('AccessShareLock', 'RowShareLock') and c.relnamespace = 'tenancy'::regnamespace and c.relkind = 'r' and c.relname <> 'changes'
   group by c.oid
  union all
  select home_schemas[1], l.relation::regclass::text, 'holds values of every home''s rows, and the file reads it', 'leave it out'
    from held l
   where l.mode = 'AccessShareLock' and l.relation in ('pg_statistic'::regclass, 'pg_statistic_ext_data'::regclass, 'tenancy.changes'::regclass)
   group by l.relation
  union all
  select home_schemas[1], coalesce((select n.nspname::text from pg_namespace n where n.oid = l.objid), 'another schema'), 'is dropped or altered', 'leave schemas to the migrator'
    from held l where l.classid = 'pg_namespace'::regclass and l.mode = 'AccessExclusiveLock'
  union all
  select home_schemas[1], 'large objects', 'are written by the file, and belong to no home', 'write them into a table of the home'
   where pg_stat_get_xact_tuples_inserted('pg_largeobject_metadata'::regclass) + pg_stat_get_xact_tuples_inserted('pg_largeobject'::regclass)
       + pg_stat_get_xact_tuples_updated('pg_largeobject'::regclass) > 0
  union all
  select home_schemas[1], made.object, made.finding, made.remedy
    from (select n.nspname::text as object, 'is a schema of its own' as finding, 'leave schemas to the migrator' as remedy, n.xmin
            from pg_namespace n where n.nspname <> all (home_schemas)
          union all select pubname::text, 'is a publication: what is replicated has no wall', 'leave it out', xmin from pg_publication
          union all
          select format('extension %s', extname), 'is installed or changed in a block or function: it is the whole database''s, and in one home''s schema',
                 'leave it out, and name it in the setting `extensions` (`tenantry` in cdk.json)', xmin from pg_extension
          union all select 'default privileges', 'would hold in all homes, and outlive the file', 'leave rights to the migrator', xmin
            from pg_default_acl where defaclrole = 'tenancy_owner'::regrole) made
   where age(made.xmin) <= 0
     and pg_xact_status((pg_current_xact_id()::text::numeric - age(made.xmin))::text::xid8) = 'in progress'
$$;

-- Completes what the transaction has changed about homes that were completed before, and audits the same: over a fleet, completing
-- and auditing all of each home would be most of what a run costs.
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

-- What a file has done that no table shows afterwards. Tables for every tenant to read (`-- shared`) hold nothing of a tenant's,
-- because no file both reads tenants' rows and writes such tables. By what PostgreSQL itself counts in a transaction: scans of a
-- table and its indexes, also in functions, views and DO blocks, and of empty ones, so that a rehearsal finds it too.

-- Of these homes, the tables that every tenant reads.
create or replace function tenancy.reference_tables(home_schemas name[], logins name[]) returns oid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
begin
  return array(
    select r.oid
      from unnest(home_schemas, logins) h(home_schema, login)
     cross join lateral (
           select objid from pg_depend d
            where d.refclassid = 'pg_namespace'::regclass and d.refobjid = to_regnamespace(quote_ident(h.home_schema)) and d.classid = 'pg_class'::regclass offset 0) d
     cross join lateral (select oid from pg_class where oid = d.objid and relkind in ('r', 'p') and relname <> '_migrations' offset 0) r
     where not exists (
           select from pg_attribute a where a.attrelid = r.oid and a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype and not a.attisdropped offset 0)
       and tenancy.is_reference(r.oid, false, h.login));
end
$$;

create or replace function tenancy.rows_changed(relation oid) returns bigint
language sql volatile as $$
  select pg_stat_get_xact_tuples_inserted(relation) + pg_stat_get_xact_tuples_updated(relation) + pg_stat_get_xact_tuples_deleted(relation)
$$;

-- How much of tables outside these homes this session has asked for. A lock that was taken where an error is caught is given back with
-- the error, while what was read by then can be kept; these counts stay. Null where nothing catches errors: neither the files
-- (`catches`) nor a function of the homes. Every table of the database is asked. Also where rights may be given or taken: that locks no
-- table, and leaves nothing but another version of its row.
create or replace function tenancy.read_elsewhere(home_schemas name[], catches boolean) returns numeric
language plpgsql volatile
set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if not catches and not exists (
       select from unnest(home_schemas) h(home_schema)
        cross join lateral (
              select objid from pg_depend d
               where d.refclassid = 'pg_namespace'::regclass and d.refobjid = to_regnamespace(quote_ident(h.home_schema)) and d.classid = 'pg_proc'::regclass offset 0) d
        cross join lateral (select prosrc from pg_proc where oid = d.objid offset 0) p
        where regexp_replace(p.prosrc, 'raise[ \t]+exception', '', 'gi') ~* 'exception|execute|\m(grant|revoke)\M') then
    return null;
  end if;
  return (
    select sum(pg_stat_get_xact_blocks_fetched(c.oid)) from pg_class c
     where c.relkind in ('r', 'm') and c.relnamespace <> all (array(
           select oid from pg_namespace where nspname = any (home_schemas || '{pg_catalog,information_schema,pg_toast,tenancy,extensions}'::name[])))
  ) + (
    -- Read by nobody else in a migration; the server looks its statistics up by their index.
    select sum(pg_stat_get_xact_numscans(r)) from unnest('{pg_statistic,pg_statistic_ext_data,tenancy.changes,tenancy.changes_tenant}'::regclass[]) r
  );
end
$$;

-- After a file, where it was asked before it. What still holds a lock is named. Without a count from before nothing is counted:
-- every table of the database would be asked, once for each batch.
create or replace function tenancy.audit_elsewhere(home_schemas name[], before numeric)
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  if before is null then
    return;
  end if;
  if tenancy.read_elsewhere(home_schemas, true) > before then
    return query select * from tenancy.audit_strays(home_schemas);
    if not found then
      return query select home_schemas[1], 'a table of another home'::text, 'is read where errors are caught'::text, 'write names without a schema'::text;
    end if;
  end if;
  return query
  select home_schemas[1], c.oid::regclass::text, 'is not of the home, and the file makes it or changes rights on it', 'write names without a schema, and leave rights to the migrator'
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where age(c.xmin) <= 0 and n.nspname <> all (home_schemas || '{pg_catalog,information_schema,pg_toast}'::name[])
     and pg_xact_status((pg_current_xact_id()::text::numeric - age(c.xmin))::text::xid8) = 'in progress';
end
$$;

-- How often a table was read: scans also of an empty one, and blocks, because a row that is fetched by its place is no scan. A file with
-- `-- shared` could take the signed context of an earlier one out of a setting and so fetch the rows of all tenants.
create or replace function tenancy.times_read(relation oid) returns bigint
language sql volatile as $$
  select pg_stat_get_xact_numscans(relation) + pg_stat_get_xact_tuples_returned(relation) + pg_stat_get_xact_blocks_fetched(relation)
$$;

-- Before a file of these homes: which tables are every tenant's to read, and the counts so far. With `shared` also how often
-- each other table was read.
create or replace function tenancy.note_tables(home_schemas name[], logins name[], shared boolean) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  open constant oid[] := tenancy.reference_tables(home_schemas, logins);
begin
  if current_setting('track_counts') <> 'on' then
    raise exception 'track_counts is off: nobody can tell what a migration reads' using errcode = '55000';
  end if;
  return jsonb_build_object(
    'references', (select coalesce(jsonb_object_agg(oid, tenancy.rows_changed(oid)), '{}') from unnest(open) oid),
    'histories', (
      select coalesce(jsonb_object_agg(c.oid, pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid)), '{}')
        from unnest(home_schemas) h(home_schema)
       cross join lateral (select oid from pg_class where relname = '_migrations' and relnamespace = to_regnamespace(quote_ident(h.home_schema)) offset 0) c),
    'tables', (
      select coalesce(jsonb_object_agg(t.oid, jsonb_build_object('scans', tenancy.times_read(t.oid), 'indexes', (
               select coalesce(jsonb_object_agg(i.indexrelid, pg_stat_get_xact_numscans(i.indexrelid)), '{}') from pg_index i where i.indrelid = t.oid))), '{}')
        from unnest(case when shared then tenancy.home_relations(home_schemas) end) h(oid)
       cross join lateral (
             select c.oid from pg_class c where c.oid = h.oid and c.relkind in ('r', 'p') and c.relname <> '_migrations' and c.oid <> all (open) offset 0) t));
end
$$;

-- After it. `shared`: it begins with `-- shared`. Every row is a finding.
create or replace function tenancy.audit_file(home_schemas name[], logins name[], noted jsonb, shared boolean)
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  open constant oid[] := tenancy.reference_tables(home_schemas, logins);
begin
  return query
  select home_schemas[1], t.key::oid::regclass::text, 'holds tenants'' rows, and is read in a file that makes tables for every tenant',
         'fill such tables from constants; move whatever reads, changes or indexes this one into a file of its own, without `-- shared`'
    from jsonb_each(noted -> 'tables') t
   where tenancy.times_read(t.key::oid) > (t.value -> 'scans')::bigint
      or exists (select from jsonb_each(t.value -> 'indexes') i where pg_stat_get_xact_numscans(i.key::oid) > i.value::bigint)
  union all
  select home_schemas[1], o.oid::regclass::text, 'has tenants'' rows, and would be every tenant''s to read', 'make another table for those, in a file that begins with `-- shared`'
    from unnest(open) o(oid) where noted -> 'tables' ? o.oid::text
  union all
  select home_schemas[1], o.oid::regclass::text, 'would be every tenant''s to read, and the file may have read tenants'' rows',
         'begin the file that makes it with `-- shared`, or declare `tenant_id uuid not null` and leave rights to the migrator'
    from unnest(open) o(oid) where not shared and not noted -> 'references' ? o.oid::text
  union all
  select home_schemas[1], r.key::oid::regclass::text, 'is every tenant''s to read, and is changed in a file that may have read tenants'' rows',
         'change it in a file that begins with `-- shared`'
    from jsonb_each(noted -> 'references') r where not shared and tenancy.rows_changed(r.key::oid) > r.value::bigint
  union all
  select home_schemas[1], h.key::oid::regclass::text, 'is the migrator''s own, and the file changes it', 'leave it alone'
    from jsonb_each(noted -> 'histories') h where pg_stat_get_xact_tuples_updated(h.key::oid) + pg_stat_get_xact_tuples_deleted(h.key::oid) > h.value::bigint;
end
$$;

-- After it, where the cursor `tenancy_before` was opened before it: that sees rows which the file has deleted or replaced.
-- It is asked only about what the transaction has locked, because of its number of rows. Every row is a finding.
create or replace function tenancy.audit_traces(home_schemas name[])
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

grant execute on function tenancy.audit_strays(name[]), tenancy.complete_changes(name[], uuid[], name[], boolean),
  tenancy.reference_tables(name[], name[]), tenancy.rows_changed(oid), tenancy.note_tables(name[], name[], boolean),
  tenancy.audit_file(name[], name[], jsonb, boolean), tenancy.audit_traces(name[]),
  tenancy.read_elsewhere(name[], boolean), tenancy.audit_elsewhere(name[], numeric), tenancy.times_read(oid) to tenancy_owner;
