-- What a home's schema consists of, in words that are the same for every home of one version: its own name and its login
-- are left out. Two homes at one version differ in nothing here, or one of them was changed past the migrator.
create function tenancy.home_shape(home_schema name, login name) returns table (object text, definition text)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  the_home oid := (select oid from pg_namespace where nspname = home_schema);
  prefix text := quote_ident(home_schema) || '.';
begin
  return query
  with relation as materialized (
    select r.*, c.relname from tenancy.relations r join pg_class c on c.oid = r.oid where r.home = the_home
  ),
  item(object, definition) as (
    select format('%s %s', case r.kind when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'S' then 'sequence' else r.kind::text end, r.relname),
           concat_ws(' ', case when r.relrowsecurity then 'row security' end, case when r.relforcerowsecurity then 'forced' end, r.reloptions::text,
             (select string_agg(x.given, ', ' order by x.given)
                from aclexplode(r.relacl) a cross join lateral (select concat(a.privilege_type, ' to ', case
                  when a.grantee = to_regrole(quote_ident(login)) then 'its login' when a.grantee = 0 then 'public' else a.grantee::regrole::text end) as given) x
               where a.grantee <> r.relowner),
             case when r.kind = 'v' then pg_get_viewdef(r.oid) end)
      from relation r
    union all
    select format('column %s.%s', r.relname, a.attname),
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' end, case when a.attidentity <> '' then concat('identity ', a.attidentity) end,
             case when a.attgenerated <> '' then 'generated' end, (select 'default ' || pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = r.oid and d.adnum = a.attnum),
             case when a.attcollation <> t.typcollation then concat('collate ', a.attcollation::regcollation) end)
      from relation r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped join pg_type t on t.oid = a.atttypid
     where r.kind in ('r', 'p')
    union all
    -- The home's own check holds the digest of its tenant: the audit compares that.
    select format('constraint %s.%s', r.relname, c.conname), pg_get_constraintdef(c.oid) || case when c.convalidated then '' else ' not valid' end
      from relation r join pg_constraint c on c.conrelid = r.oid where c.conname::text <> 'tenancy_home'
    union all
    select format('index %s', x.relname), pg_get_indexdef(i.indexrelid) || case when i.indisvalid then '' else ' invalid' end
      from relation r join pg_index i on i.indrelid = r.oid join pg_class x on x.oid = i.indexrelid
    union all
    select format('trigger %s.%s', r.relname, g.tgname), concat(pg_get_triggerdef(g.oid), ' enabled ', g.tgenabled)
      from relation r join pg_trigger g on g.tgrelid = r.oid where not g.tgisinternal
    union all
    select format('policy %s.%s', r.relname, p.polname),
           concat_ws(' ', case when p.polpermissive then 'permissive' else 'restrictive' end, p.polcmd, p.polroles::regrole[]::text,
             'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid))
      from relation r join pg_policy p on p.polrelid = r.oid
    union all
    select format('function %s', p.oid::regprocedure), pg_get_functiondef(p.oid)
      from pg_depend d join pg_proc p on p.oid = d.objid and p.prokind in ('f', 'p')
     where d.refclassid = 'pg_namespace'::regclass and d.refobjid = the_home and d.classid = 'pg_proc'::regclass
    union all
    select format('type %s', t.typname), concat(t.typtype, (select string_agg(e.enumlabel, ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid))
      from pg_depend d join pg_type t on t.oid = d.objid and t.typtype in ('e', 'd', 'r')
     where d.refclassid = 'pg_namespace'::regclass and d.refobjid = the_home and d.classid = 'pg_type'::regclass
  )
  select replace(i.object, prefix, ''), replace(replace(i.definition, prefix, ''), quote_ident(login), 'its login') from item i;
end
$$;

grant execute on function tenancy.home_shape(name, name) to tenancy_owner;
