-- The isolation audit of one home: every row is a finding that makes the migrator refuse the migration which brought it.
-- It reads the system catalogs alone, so that it can also run later, over a home that is in use.

create function tenancy.audit(home_schema name, shared boolean, tenant uuid, login name)
returns table (object text, finding text, remedy text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  home oid := (select oid from pg_namespace where nspname = home_schema);
  own constant text := '(tenant_id = ( SELECT tenancy.current_tenant() AS current_tenant))';
  maintained constant text := '((( SELECT tenancy.maintained_tenant() AS maintained_tenant) IS NULL) OR (tenant_id = ( SELECT tenancy.maintained_tenant() AS maintained_tenant)))';
  own_default constant text := '(NULLIF(current_setting(''tenancy.tenant''::text, true), ''''::text))::uuid';
begin
  if home is null then
    return query select home_schema::text, 'the schema does not exist'::text, 'provision the home again'::text;
    return;
  end if;

  return query
  -- Shape: the same in every strategy.
  select t.relation::text, 'has no column `tenant_id uuid not null`', 'declare `tenant_id uuid not null` as its first column'
    from tenancy.home_tables(home_schema) t
   where not exists (select from pg_attribute a where a.attrelid = t.relation and a.attname = 'tenant_id'
                       and not a.attisdropped and a.attnotnull and a.atttypid = 'uuid'::regtype)
  union all
  select t.relation::text, 'has no primary key that starts with tenant_id', 'write `primary key (tenant_id, …)`'
    from tenancy.home_tables(home_schema) t where coalesce((tenancy.primary_key(t.relation))[1], '') <> 'tenant_id'
  union all
  select i.indexrelid::regclass::text, 'is unique over all tenants: one could probe for another''s values',
         'add tenant_id to its columns'
    from pg_index i join tenancy.home_tables(home_schema) t on t.relation = i.indrelid
   -- Anywhere among the key columns: where a tenant has tables of its own, statements do not name tenant_id, and an index
   -- that it leads is of no use to them.
   where (i.indisunique or i.indisexclusion) and not exists (select from pg_attribute a
           where a.attrelid = i.indrelid and a.attname = 'tenant_id' and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
             and (not i.indisexclusion or exists (select from pg_constraint x, unnest(x.conkey, x.conexclop) k(attnum, operator)
                   where x.conindid = i.indexrelid and k.attnum = a.attnum and k.operator = 'pg_catalog.=(uuid,uuid)'::regoperator)))
  union all
  select format('%s.%s', f.conrelid::regclass, f.conname), 'is a foreign key that can point at another tenant''s row',
         'write `foreign key (tenant_id, …) references … (tenant_id, …)`, within the home'
    from pg_constraint f join tenancy.home_tables(home_schema) t on t.relation = f.conrelid
   where f.contype = 'f' and (not exists (
           select from unnest(f.conkey, f.confkey) k(here, there)
             join pg_attribute x on x.attrelid = f.conrelid and x.attnum = k.here and x.attname = 'tenant_id'
             join pg_attribute y on y.attrelid = f.confrelid and y.attnum = k.there and y.attname = 'tenant_id')
      or (select relnamespace from pg_class where oid = f.confrelid) <> home)
  union all
  select format('%s.%s', f.conrelid::regclass, f.conname), 'would set tenant_id itself to null or its default',
         'name the columns: `on delete set null (column)`'
    from pg_constraint f join tenancy.home_tables(home_schema) t on t.relation = f.conrelid
   where f.contype = 'f' and (f.confupdtype in ('n', 'd') or f.confdeltype in ('n', 'd') and (f.confdelsetcols is null or exists (
           select from pg_attribute a where a.attrelid = f.conrelid and a.attname = 'tenant_id' and a.attnum = any (f.confdelsetcols))))
  union all
  select format('%s.%s', f.conrelid::regclass, f.conname), 'is not deferrable', 'let the migrator complete it: do not alter it'
    from pg_constraint f join tenancy.home_tables(home_schema) t on t.relation = f.conrelid
   where f.contype = 'f' and not f.condeferrable
  union all
  select d.adrelid::regclass::text, 'draws from a sequence in a default: it pins RDS Proxy, and tells how busy others are',
         'use `gen_random_uuid()` for keys, `generated always as identity` elsewhere'
    from pg_attrdef d join tenancy.home_tables(home_schema) t on t.relation = d.adrelid
   where pg_get_expr(d.adbin, d.adrelid) ~ '\mnextval\('
  union all
  select t.relation::text, 'has a default of its own for tenant_id', 'leave the default of tenant_id to the migrator'
    from tenancy.home_tables(home_schema) t where tenancy.tenant_default(t.relation) is distinct from own_default
  union all
  select t.relation::text, 'has no capture trigger, or not on every change', 'do not drop, alter or disable the trigger tenancy_capture'
    from tenancy.home_tables(home_schema) t
   where not t.is_partition and not exists (select from pg_trigger g where g.tgrelid = t.relation and g.tgname = 'tenancy_capture'
           and g.tgenabled in ('O', 'A') and g.tgtype = 29 and g.tgfoid = 'tenancy.capture()'::regprocedure
           and encode(g.tgargs, 'escape') = array_to_string(tenancy.primary_key(t.relation), '\000') || '\000')

  -- Kinds of objects that go round the wall.
  union all
  select c.oid::regclass::text, case c.relkind when 'm' then 'is a materialized view: it holds rows without their wall'
           when 'f' then 'is a foreign table: it has no wall' else 'is a view with its owner''s rights' end,
         case c.relkind when 'v' then 'write `with (security_invoker = true)`' else 'use a table or a view' end
    from pg_class c where c.relnamespace = home
     and (c.relkind in ('m', 'f') or c.relkind = 'v' and not coalesce(c.reloptions @> '{security_invoker=true}', false))
  union all
  select format('%s.%s', w.ev_class::regclass, w.rulename), 'is a rule: it rewrites statements with its owner''s rights', 'use a trigger'
    from pg_rewrite w join pg_class c on c.oid = w.ev_class where c.relnamespace = home and w.rulename <> '_RETURN'
  union all
  select p.oid::regprocedure::text, 'is a SECURITY DEFINER function without a fixed path',
         'drop SECURITY DEFINER, or write `set search_path = pg_catalog, pg_temp` and qualify its names'
    from pg_proc p where p.pronamespace = home and p.prosecdef and not exists (
           select from unnest(p.proconfig) s where s ~ '^search_path=(pg_catalog, ?)?pg_temp$' or s in ('search_path=', 'search_path=""'))
  union all
  select p.oid::regprocedure::text, 'is marked LEAKPROOF', 'drop LEAKPROOF' from pg_proc p where p.pronamespace = home and p.proleakproof
  union all
  select c.oid::regclass::text, format('is owned by %s', pg_get_userbyid(c.relowner)), 'do not change owners'
    from pg_class c where c.relnamespace = home and c.relowner <> 'tenancy_owner'::regrole

  -- Rights: data only, and for the home's login alone.
  union all
  select c.oid::regclass::text, format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: the migrator does'
    from pg_class c, aclexplode(c.relacl) a
   where c.relnamespace = home and a.grantee <> c.relowner
     and (a.grantee <> to_regrole(quote_ident(login)) or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') or a.is_grantable
          or c.relname = '_migrations')
  union all
  select format('%s.%s', c.attrelid::regclass, c.attname), format('%s is granted on a column', a.privilege_type), 'do not grant: the migrator does'
    from pg_attribute c join pg_class r on r.oid = c.attrelid, aclexplode(c.attacl) a
   where r.relnamespace = home and a.grantee <> r.relowner
  union all
  select format('schema %s', n.nspname), format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: the migrator does'
    from pg_namespace n, aclexplode(n.nspacl) a
   where n.oid = home and a.grantee <> n.nspowner and (a.grantee <> to_regrole(quote_ident(login)) or a.privilege_type <> 'USAGE');

  if shared then
    return query
    select t.relation::text, 'row-level security is not enabled and forced', 'do not disable it'
      from tenancy.home_tables(home_schema) t join pg_class c on c.oid = t.relation
     where not (c.relrowsecurity and c.relforcerowsecurity)
    union all
    select t.relation::text, format('the policy %s is missing or changed', expected.name), 'leave policies to the migrator'
      from tenancy.home_tables(home_schema) t,
           (values ('tenancy_guard', false, 'tenancy_app', own), ('tenancy_rows', true, 'public', own),
                   ('tenancy_maintenance', true, 'tenancy_owner', maintained)) expected(name, permissive, role, expression)
     where not exists (select from pg_policy p where p.polrelid = t.relation and p.polname = expected.name
             and p.polpermissive = expected.permissive and p.polcmd = '*' and p.polroles = array[coalesce(to_regrole(expected.role)::oid, 0)]
             and pg_get_expr(p.polqual, p.polrelid) = expected.expression and pg_get_expr(p.polwithcheck, p.polrelid) = expected.expression)
    union all
    select format('%s.%s', p.polrelid::regclass, p.polname), 'is a policy of its own: a permissive one widens what a tenant sees',
           'drop it; rules of the application belong into its statements'
      from pg_policy p join tenancy.home_tables(home_schema) t on t.relation = p.polrelid
     where p.polname not in ('tenancy_guard', 'tenancy_rows', 'tenancy_maintenance');
  else
    return query
    select t.relation::text, 'does not refuse rows of other tenants', 'do not drop the constraint tenancy_home'
      from tenancy.home_tables(home_schema) t
     where not exists (select from pg_constraint c where c.conrelid = t.relation and c.conname = 'tenancy_home' and c.convalidated
             and pg_get_expr(c.conbin, c.conrelid) = format('(sha256(uuid_send(tenant_id)) = ''%s''::bytea)', sha256(uuid_send(tenant))));
  end if;
end
$$;

grant execute on function tenancy.audit(name, boolean, uuid, name) to tenancy_owner;
