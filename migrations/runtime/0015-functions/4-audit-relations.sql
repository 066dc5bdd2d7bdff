-- The audit: whatever of homes is not as the walls need it. It runs in a migration's own transaction and in every look of the
-- canary. Run as tenancy_keeper.

-- Functions of these homes that are called IMMUTABLE and come to rows or settings, through whichever others: their answer for one tenant
-- stays in the plans of a session that the next one's calls run in. By their text: a table's name behind FROM and the like, also in a
-- list; and what runs a text as SQL, which may name any. Comments are read both as what they are and as what they may be.
create or replace function tenancy.immutable_readers(home_schemas name[]) returns oid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  escaped constant text := '(\W)';
begin
  return array(
    with recursive function as materialized (
      select h.home_schema, p.oid, lower(p.proname) as name, p.provolatile, lower(concat(t.text, ' ', regexp_replace(t.text, '/\*.*?\*/|--[^\n\r]*', ' ', 'g'))) as text
        from unnest(home_schemas) h(home_schema)
       cross join lateral (
             select objid from pg_depend d
              where d.refclassid = 'pg_namespace'::regclass and d.refobjid = to_regnamespace(quote_ident(h.home_schema)) and d.classid = 'pg_proc'::regclass offset 0) d
        join pg_proc p on p.oid = d.objid
       cross join lateral (select coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) as text) t
    ),
    -- Where no name is to be found no expression need be tried.
    call as materialized (
      select f.oid as function, other.oid as called from function f join function other on other.home_schema = f.home_schema
       where strpos(f.text, other.name) > 0
         and f.text ~ format('(^|\W)%s"?\s*\(|\.\s*"?%1$s(\W|$)', regexp_replace(other.name, escaped, '\\\1', 'g'))
      union all
      select f.oid, d.refobjid from function f
       cross join lateral (
             select refobjid from pg_depend where classid = 'pg_proc'::regclass and objid = f.oid and refclassid = 'pg_proc'::regclass offset 0) d
    ),
    relation as materialized (
      select h.home_schema, lower(c.relname) as name
        from unnest(home_schemas) h(home_schema) cross join lateral unnest(tenancy.home_relations(array[h.home_schema])) r(oid)
       cross join lateral (select relname from pg_class where oid = r.oid and relkind in ('r', 'p', 'v') offset 0) c
    ),
    reader(function) as (
      select f.oid from function f
       where exists (select from function i where i.provolatile = 'i') and (f.text ~ '\m(current_setting|current_tenant|execute|(query|table|cursor|schema|database)_to_xml\w*|ts_stat|ts_rewrite)\M'
          or exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass offset 0)
          or exists (select from relation r
                where r.home_schema = f.home_schema and strpos(f.text, r.name) > 0
                  and f.text ~ format('\m(from|join|table|using|update)\M(((?!\m(where|group|order|union)\M)[^;()]|\(([^()]|\([^()]*\))*\))*,)?[\s(]*((only|lateral)\M[\s(]*)?("?%s"?\s*\.\s*)?"?%s"?(\W|$)',
                        lower(r.home_schema), regexp_replace(r.name, escaped, '\\\1', 'g'))))
      union
      select c.function from reader r join call c on c.called = r.function
    )
    select f.oid from reader r join function f on f.oid = r.function where f.provolatile = 'i');
end
$$;

-- Of homes of one kind, of what is the homes' own and of these tables and views. Every row is a finding.
--  * An index of a shared table has tenant_id among its columns. What can't leak is looked up in one without it among all tenants'
--    values before the wall is asked, and whether it was asked, or PostgreSQL's own counts, tell whether anybody has such a row.
--    Not asked of GIN, GiST and SP-GiST: few of their conditions are known not to leak, and a uuid needs an extension there.
--  * What a table without tenant_id or without a key lacks besides is not told: it follows, and its remedy would hide the one that helps.
--  * A sequence is refused that no tenant may draw from: in shared tables it would be over all of them, so no login has a right on it,
--    and a tool that drew from it would fail at its first call. Left are those of identity columns, and of tables for reading only,
--    whose rows migrations alone write.
--  * A function that is called IMMUTABLE is computed once for the plans that a PL/pgSQL function keeps as long as its session
--    lasts: what it has read of one tenant's rows was answered to others.
--    By what they reach, not by their own text alone: so are operators and aggregates that are made of a built-in which runs a text as
--    SQL, because no expression that uses them names it.
create or replace function tenancy.audit_relations(home_schemas name[], tenants uuid[], logins name[], shared boolean, relations oid[])
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  own constant text := '(tenant_id = ( SELECT tenancy.current_tenant() AS current_tenant))';
  first constant text := '((JSON_OBJECT(tenant_id : true RETURNING jsonb))[( SELECT (tenancy.current_tenant())::text AS current_tenant)] IS NOT NULL)';
  maintained constant text := '(tenant_id = ANY (( SELECT tenancy.maintained_tenants() AS maintained_tenants)::uuid[]))';
  -- Those that an operator or aggregate can be made of.
  runs_text constant oid[] := array['ts_stat(text)'::regprocedure, 'ts_stat(text,text)'::regprocedure, 'ts_rewrite(tsquery,text)'::regprocedure];
  own_default constant text := '(NULLIF(current_setting(''tenancy.tenant''::text, true), ''''::text))::uuid';
begin
  return query
  with home as materialized (
    select h.home_schema, h.tenant, h.login, n.oid, n.nspowner, n.nspacl, to_regrole(quote_ident(h.login))::oid as grantee
      from unnest(home_schemas, tenants, logins) h(home_schema, tenant, login)
      left join lateral (select * from pg_namespace s where s.nspname = h.home_schema offset 0) n on true
  ),
  relation as materialized (
    select h.home_schema, h.tenant, h.login, h.grantee, r.*, t.attnum as tenant_column, coalesce(t.attnotnull and t.is_uuid, false) as tenant_not_null,
           r.kind in ('r', 'p') and tenancy.is_reference(r.oid, coalesce(t.is_uuid, false), h.login) as is_reference
      from unnest(relations) given(relation)
     cross join lateral (
           select oid, oid::regclass as name, relnamespace as home, relkind as kind, relispartition as is_partition, relowner, relacl, reloptions,
                  relrowsecurity, relforcerowsecurity, relhasrules
             from pg_class where oid = given.relation and relkind in ('r', 'p', 'v', 'm', 'f', 'S') and relname <> '_migrations' offset 0) r
      join home h on h.oid = r.home and h.grantee is not null
      left join lateral (
           select attnum, attnotnull, atttypid = 'uuid'::regtype as is_uuid from pg_attribute
            where attrelid = r.oid and attname = 'tenant_id' and not attisdropped offset 0) t on true
  ),
  tenant_table as materialized (
    select r.*, k.columns as key_columns,
           (select pg_get_expr(x.adbin, x.adrelid) from pg_attrdef x where x.adrelid = r.oid and x.adnum = r.tenant_column) as tenant_default
      from relation r cross join lateral (
           select (select array(select a.attname::text from unnest(p.conkey) with ordinality k(attnum, position)
                                join pg_attribute a on a.attrelid = p.conrelid and a.attnum = k.attnum order by k.position)
                         from pg_constraint p where p.conrelid = r.oid and p.contype = 'p') as columns offset 0) k
     where r.kind in ('r', 'p') and not r.is_reference
  ),
  foreign_key as materialized (
    select t.home_schema, t.home, t.login, t.tenant_column, f.* from tenant_table t
     cross join lateral (select * from pg_constraint where conrelid = t.oid and contype = 'f' offset 0) f
  ),
  function as materialized (
    select h.home_schema, p.* from home h
     cross join lateral (
           select objid from pg_depend d
            where d.refclassid = 'pg_namespace'::regclass and d.refobjid = h.oid and d.classid = 'pg_proc'::regclass offset 0) d
      join pg_proc p on p.oid = d.objid
  )
  select h.home_schema, h.home_schema::text, case when h.oid is null then 'the schema does not exist' else 'its login does not exist' end, 'provision the home again'
    from home h where h.oid is null or h.grantee is null

  -- Shape: the same in every strategy.
  union all
  select t.home_schema, t.name::text, 'has no column `tenant_id uuid not null`',
         'declare `tenant_id uuid not null` as its first column, or begin the file with `-- shared` when the table is for reading only'
    from tenant_table t where not t.tenant_not_null
  union all
  select t.home_schema, t.name::text, 'has no primary key that starts with tenant_id', 'write `primary key (tenant_id, …)`'
    from tenant_table t where coalesce(t.key_columns[1], '') <> 'tenant_id'
  union all
  select t.home_schema, i.indexrelid::regclass::text, 'is unique over all tenants: one could probe for another''s values', 'add tenant_id to its columns'
    from tenant_table t cross join lateral (select * from pg_index where indrelid = t.oid and (indisunique or indisexclusion) offset 0) i
   -- Anywhere among the key columns: where a tenant has tables of its own, statements do not name tenant_id, and an index
   -- that it leads is of no use to them.
   where not (coalesce(t.tenant_column = any (i.indkey[0:i.indnkeyatts - 1]), false)
         and (not i.indisexclusion or exists (select from pg_constraint x, unnest(x.conkey, x.conexclop) k(attnum, operator)
               where x.conrelid = t.oid and x.conindid = i.indexrelid and k.attnum = t.tenant_column and k.operator = 'pg_catalog.=(uuid,uuid)'::regoperator offset 0)))
  union all
  select f.home_schema, format('%s.%s', f.conrelid::regclass, f.conname), 'is a foreign key that can point at another tenant''s row',
         'write `foreign key (tenant_id, …) references … (tenant_id, …)`, within the home'
    from foreign_key f
   -- What it points at need not be one of these tables.
   where not exists (select from pg_class r where r.oid = f.confrelid and r.relnamespace = f.home and tenancy.is_reference(r.oid, exists (
           select from pg_attribute y where y.attrelid = r.oid and y.attname = 'tenant_id' and y.atttypid = 'uuid'::regtype and not y.attisdropped), f.login) offset 0)
     and (not exists (
           select from unnest(f.conkey, f.confkey) k(here, there)
             join pg_attribute x on x.attrelid = f.conrelid and x.attnum = k.here and x.attname = 'tenant_id'
             join pg_attribute y on y.attrelid = f.confrelid and y.attnum = k.there and y.attname = 'tenant_id' offset 0)
      or (select relnamespace from pg_class where oid = f.confrelid) <> f.home)
  union all
  select f.home_schema, format('%s.%s', f.conrelid::regclass, f.conname), 'would set tenant_id itself to null or its default',
         'name the columns: `on delete set null (column)`'
    from foreign_key f
   where f.tenant_column = any (f.conkey)
     and (f.confupdtype in ('n', 'd') or f.confdeltype in ('n', 'd') and (f.confdelsetcols is null or f.tenant_column = any (f.confdelsetcols)))
  union all
  select f.home_schema, format('%s.%s', f.conrelid::regclass, f.conname), 'is not deferrable', 'let the migrator complete it: do not alter it'
    from foreign_key f where not f.condeferrable
  union all
  select t.home_schema, t.name::text, 'draws from a sequence in a default: it pins RDS Proxy, and tells how busy others are',
         'declare it `bigint generated by default as identity`, in place of `serial` or a dump''s sequence and default, or use `gen_random_uuid()`'
    from tenant_table t cross join lateral (select adbin from pg_attrdef where adrelid = t.oid offset 0) d
   where position(format(' :funcid %s ', 'nextval(regclass)'::regprocedure::oid) in d.adbin::text) > 0
  union all
  select t.home_schema, t.name::text, 'has a default of its own for tenant_id', 'leave the default of tenant_id to the migrator'
    from tenant_table t where t.tenant_column is not null and t.tenant_default is distinct from own_default
  union all
  select t.home_schema, t.name::text, 'has no capture trigger, or not on every change', 'do not drop, alter or disable the trigger tenancy_capture'
    from tenant_table t
   where not t.is_partition and t.key_columns is not null and not exists (select from pg_trigger g where g.tgrelid = t.oid and g.tgname = 'tenancy_capture'
           and g.tgenabled in ('O', 'A') and g.tgtype = 29 and g.tgfoid = 'tenancy.capture()'::regprocedure
           and encode(g.tgargs, 'escape') = tenancy.key_arguments(t.key_columns) offset 0)
  union all
  select t.home_schema, i.indexrelid::regclass::text, 'is looked up in before the wall: whether anybody has a value could be told',
         case i.amname when 'hash' then 'make it a B-tree with tenant_id at its end: a hash index has one column'
           else 'add tenant_id to its columns, at its end where tools look up by the others' end
    from tenant_table t cross join lateral (
          select m.amname, x.indexrelid, x.indkey, x.indnkeyatts from pg_index x join pg_class c on c.oid = x.indexrelid join pg_am m on m.oid = c.relam
           where x.indrelid = t.oid and not (x.indisunique or x.indisexclusion) and m.amname not in ('gin', 'gist', 'spgist') offset 0) i
   where shared and not coalesce(t.tenant_column = any (i.indkey[0:i.indnkeyatts - 1]), false)

  -- Kinds of objects that go round the wall.
  union all
  select r.home_schema, r.name::text, case r.kind when 'm' then 'is a materialized view: it holds rows without their wall'
           when 'f' then 'is a foreign table: it has no wall' else 'is a view with its owner''s rights' end,
         case r.kind when 'v' then 'write `with (security_invoker = true)`' else 'use a table or a view' end
    from relation r where r.kind in ('m', 'f') or r.kind = 'v' and not coalesce(r.reloptions @> '{security_invoker=true}', false)
  union all
  select r.home_schema, format('%s.%s', w.ev_class::regclass, w.rulename), 'is a rule: it rewrites statements with its owner''s rights', 'use a trigger'
    from relation r cross join lateral (select ev_class, rulename from pg_rewrite where ev_class = r.oid and rulename <> '_RETURN' offset 0) w
   where r.relhasrules
  union all
  select r.home_schema, r.name::text, 'is a sequence that no tenant may draw from: it would be over all of them',
         'leave it out; for numbers use `generated by default as identity`, or a table with a row that counts'
    from relation r
   where r.kind = 'S' and not exists (
         select from pg_depend d
          where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
            and (d.deptype = 'i' or d.deptype = 'a' and tenancy.is_reference(d.refobjid, false, r.login)) offset 0)
  union all
  select h.home_schema, o.identity, 'runs a text as SQL: with the rights of the owner of all homes when a foreign key or the server uses it', 'look rows up in a trigger AFTER'
    from home h
   cross join lateral (
         select classid, objid from pg_depend
          where refclassid = 'pg_namespace'::regclass and refobjid = h.oid and classid in ('pg_operator'::regclass, 'pg_proc'::regclass) offset 0) d
   cross join lateral (
         select from pg_operator p where d.classid = 'pg_operator'::regclass and p.oid = d.objid and p.oprcode = any (runs_text)
         union all
         select from pg_aggregate a where d.classid = 'pg_proc'::regclass and a.aggfnoid = d.objid and array[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggmfinalfn]::oid[] && runs_text) made
   cross join lateral pg_identify_object(d.classid, d.objid, 0) o
  union all
  select p.home_schema, p.oid::regprocedure::text, 'is marked LEAKPROOF', 'drop LEAKPROOF' from function p where p.proleakproof
  union all
  select p.home_schema, p.oid::regprocedure::text, 'is IMMUTABLE and reads a table or a setting: a session keeps its answer for other tenants', 'declare it STABLE'
    from function p where shared and p.oid = any ((select tenancy.immutable_readers(home_schemas))::oid[])
  union all
  select r.home_schema, r.name::text, format('is owned by %s', pg_get_userbyid(r.relowner)), 'do not change owners'
    from relation r where r.relowner <> 'tenancy_owner'::regrole

  -- Rights: data only, and for the home's login alone.
  union all
  select r.home_schema, r.name::text, format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: the migrator does'
    from relation r, aclexplode(r.relacl) a
   where a.grantee <> r.relowner
     and (a.grantee <> r.grantee or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') or a.is_grantable or r.kind = 'S')
  union all
  select h.home_schema, c.oid::regclass::text, format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: it is the migrator''s own'
    from home h cross join lateral (
           select oid, relowner, relacl from pg_class k where k.relname = '_migrations' and k.relnamespace = h.oid offset 0) c, aclexplode(c.relacl) a
   where a.grantee <> c.relowner
  union all
  select r.home_schema, format('%s.%s', c.attrelid::regclass, c.attname), format('%s is granted on a column', a.privilege_type), 'do not grant: the migrator does'
    from relation r cross join lateral (select attrelid, attname, attacl from pg_attribute where attrelid = r.oid and attacl is not null offset 0) c,
         aclexplode(c.attacl) a
   where a.grantee <> r.relowner
  union all
  select h.home_schema, format('schema %s', h.home_schema), format('%s is granted to %s', a.privilege_type, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
         'do not grant: the migrator does'
    from home h, aclexplode(h.nspacl) a
   where a.grantee <> h.nspowner and (a.grantee <> h.grantee or a.privilege_type <> 'USAGE')

  -- Shared tables.
  union all
  select t.home_schema, t.name::text, 'row-level security is not enabled and forced', 'do not disable it'
    from tenant_table t where shared and t.tenant_column is not null and not (t.relrowsecurity and t.relforcerowsecurity)
  union all
  select t.home_schema, t.name::text, format('the policy %s is missing or changed', expected.name), 'leave policies to the migrator'
    from tenant_table t,
         (values ('tenancy_guard', false, 'tenancy_app', format('(%s AND %s)', own, first), own),
                 ('tenancy_rows', true, 'public', format('(%s AND %s)', own, first), own),
                 ('tenancy_maintenance', true, 'tenancy_owner', maintained, maintained)) expected(name, permissive, role, sees, writes)
   where shared and t.tenant_column is not null and not exists (select from pg_policy p where p.polrelid = t.oid and p.polname = expected.name
           and p.polpermissive = expected.permissive and p.polcmd = '*' and p.polroles = array[coalesce(to_regrole(expected.role)::oid, 0)]
           and pg_get_expr(p.polqual, p.polrelid) = expected.sees and pg_get_expr(p.polwithcheck, p.polrelid) = expected.writes offset 0)
  union all
  select t.home_schema, format('%s.%s', p.polrelid::regclass, p.polname), 'is a policy of its own: a permissive one widens what a tenant sees',
         'drop it; rules of the application belong into its statements'
    from tenant_table t cross join lateral (select polrelid, polname from pg_policy where polrelid = t.oid offset 0) p
   where shared and p.polname not in ('tenancy_guard', 'tenancy_rows', 'tenancy_maintenance')

  -- A tenant's own tables.
  union all
  select t.home_schema, t.name::text, 'does not refuse rows of other tenants', 'do not drop the constraint tenancy_home'
    from tenant_table t
   where not shared and t.tenant_column is not null and not exists (select from pg_constraint c where c.conrelid = t.oid and c.conname::text = 'tenancy_home' and c.convalidated
           and pg_get_expr(c.conbin, c.conrelid) = format('(sha256(uuid_send(tenant_id)) = ''%s''::bytea)', sha256(uuid_send(t.tenant))) offset 0);
end
$$;

grant execute on function tenancy.immutable_readers(name[]), tenancy.audit_relations(name[], uuid[], name[], boolean, oid[]) to tenancy_owner;
