-- The wall of the shared tables is asked before any condition of a statement's own. PostgreSQL lets conditions that can't leak
-- and cost less than the policy's go first, and asked `current_tenant()` at the first row, of whichever tenant, that had passed
-- them. `where tenant_id = any ('{…}') and amount < any ('{…}')` cost half of the policy's comparison, and whether the wall had
-- been asked could be seen: it raises without a pass, it holds a lock, EXPLAIN ANALYZE says so. That told any value of any
-- tenant, bit by bit. As a row, the one subquery gives two conditions, and `true` costs nothing: it goes before all others.
-- Run as tenancy_keeper.

-- In the two functions of 0013 that write and compare policies; all else of those stays.
do $$
declare
  definition text;
  policy constant text := $sql$'(tenant_id, true) = (select tenancy.current_tenant(), true)'$sql$;
  shown constant text := $sql$E'((tenant_id, true) = ( SELECT tenancy.current_tenant() AS current_tenant,\n    true))'$sql$;
begin
  definition := replace(pg_get_functiondef('tenancy.protect_relations(name[],uuid[],name[],boolean,oid[])'::regprocedure),
    $sql$'tenant_id = (select tenancy.current_tenant())'$sql$, policy);
  if position(policy in definition) = 0 then
    raise exception 'tenancy.protect_relations is not what 0013 made it';
  end if;
  execute definition;
  definition := replace(pg_get_functiondef('tenancy.audit_relations(name[],uuid[],name[],boolean,oid[])'::regprocedure),
    $sql$'(tenant_id = ( SELECT tenancy.current_tenant() AS current_tenant))'$sql$, shown);
  if position(shown in definition) = 0 then
    raise exception 'tenancy.audit_relations is not what 0013 made it';
  end if;
  execute definition;
end
$$;

-- The tables that are there already. All locks or none, and no long wait for them: whoever waits for one of these tables
-- behind us while holding another would wait for ever, and everybody behind him.
do $$
declare
  tables text;
  command text;
begin
  select string_agg(distinct polrelid::regclass::text, ', ') into tables
    from pg_policy join pg_class on pg_class.oid = polrelid
   where relnamespace = to_regnamespace('shared') and polname in ('tenancy_guard', 'tenancy_rows');
  if tables is null then
    return;
  end if;
  perform set_config('role', 'tenancy_owner', true);
  for attempt in 1..100 loop
    begin
      perform set_config('lock_timeout', '200ms', true);
      execute format('lock table %s in access exclusive mode', tables);
      exit;
    exception when lock_not_available or deadlock_detected then
      if attempt = 100 then
        raise;
      end if;
      perform pg_sleep(0.1);
    end;
  end loop;
  for command in
    select format('alter policy %1$I on %2$s using (%3$s) with check (%3$s)', polname, polrelid::regclass, '(tenant_id, true) = (select tenancy.current_tenant(), true)')
      from pg_policy join pg_class on pg_class.oid = polrelid
     where relnamespace = to_regnamespace('shared') and polname in ('tenancy_guard', 'tenancy_rows')
  loop
    execute command;
  end loop;
  perform set_config('role', 'tenancy_keeper', true);
end
$$;
