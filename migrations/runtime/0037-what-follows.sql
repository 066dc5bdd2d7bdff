-- What a migration is told. A table without tenant_id or without a key lacks policies, defaults and triggers too: those follow, and the
-- remedies that named them ("leave it to the migrator") hid the one that helps. A SECURITY DEFINER function is refused whatever its
-- path (0016), so no remedy offers one with a path any more.
-- Run as tenancy_keeper.

do $$
declare
  definition text := pg_get_functiondef('tenancy.audit_relations(name[],uuid[],name[],boolean,oid[])'::regprocedure);
  change record;
begin
  for change in select * from (values
      ('where t.tenant_default is distinct from own_default',
       'where t.tenant_column is not null and t.tenant_default is distinct from own_default'),
      ('where not t.is_partition and not exists (select from pg_trigger g where',
       'where not t.is_partition and t.key_columns is not null and not exists (select from pg_trigger g where'),
      ('where shared and not (t.relrowsecurity and t.relforcerowsecurity)',
       'where shared and t.tenant_column is not null and not (t.relrowsecurity and t.relforcerowsecurity)'),
      ('where shared and not exists (select from pg_policy p where',
       'where shared and t.tenant_column is not null and not exists (select from pg_policy p where'),
      ('where not shared and not exists (select from pg_constraint c where',
       'where not shared and t.tenant_column is not null and not exists (select from pg_constraint c where'),
      ($sql$  select p.home_schema, p.oid::regprocedure::text, 'is a SECURITY DEFINER function without a fixed path',
         'drop SECURITY DEFINER, or write `set search_path = pg_catalog, pg_temp` and qualify its names'
    from function p where p.prosecdef and not exists (
           select from unnest(p.proconfig) s where s ~ '^search_path=(pg_catalog, ?)?pg_temp$' or s in ('search_path=', 'search_path=""'))
  union all
$sql$,
       '')) c(before, after)
  loop
    if position(change.before in definition) = 0 then
      raise exception 'tenancy.audit_relations is not what this file was written for: %', change.before;
    end if;
    definition := replace(definition, change.before, change.after);
  end loop;
  execute definition;
end
$$;
