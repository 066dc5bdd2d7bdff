-- What a home's schema consists of, in words that are the same for every home of one version: its own name and its login
-- are left out. Two homes at one version differ in nothing here, or one of them was changed past the migrator. All that a home
-- can differ in is here: persistence, partitions, inheritance, replica identity and publications of tables, parameters of
-- sequences, attributes of composite types, what domains check, aggregates, foreign keys whose triggers rest, rights and owners
-- of functions and types, default privileges, and the name of whatever else stands in its schema. Run as tenancy_keeper.
create or replace function tenancy.home_shape(home_schema name, login name) returns table (object text, definition text)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  the_home oid := (select oid from pg_namespace where nspname = home_schema);
  prefix text := quote_ident(home_schema) || '.';
  the_owner oid := 'tenancy_owner'::regrole;
begin
  return query
  with relation as materialized (
    select r.*, c.relname, c.relpersistence, c.relpartbound, c.relreplident from tenancy.relations r join pg_class c on c.oid = r.oid where r.home = the_home
  ),
  held as materialized (
    select d.classid, d.objid from pg_depend d
     where d.refclassid = 'pg_namespace'::regclass and d.refobjid = the_home and d.classid <> 'pg_class'::regclass and d.deptype = 'n'
  ),
  -- A composite type is a relation that belongs to its type: it has no schema of its own.
  composite as materialized (
    select c.oid, c.relname from held h join pg_type t on t.oid = h.objid join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
     where h.classid = 'pg_type'::regclass and t.typtype = 'c'
  ),
  rights(class, id, owner, acl) as (
    select 'pg_class'::regclass, r.oid, r.relowner, r.relacl from relation r
    union all select 'pg_proc'::regclass, p.oid, p.proowner, p.proacl from held h join pg_proc p on p.oid = h.objid where h.classid = 'pg_proc'::regclass
    union all select 'pg_type'::regclass, t.oid, t.typowner, t.typacl from held h join pg_type t on t.oid = h.objid where h.classid = 'pg_type'::regclass
  ),
  given as materialized (
    select g.class, g.id, concat_ws(' ', case when g.owner <> the_owner then 'owned by ' || pg_get_userbyid(g.owner) end,
             (select string_agg(x.given, ', ' order by x.given)
                from aclexplode(g.acl) a cross join lateral (select concat(a.privilege_type, ' to ', case
                  when a.grantee = to_regrole(quote_ident(login)) then 'its login' when a.grantee = 0 then 'public' else a.grantee::regrole::text end,
                  case when a.is_grantable then ' with grant option' end) as given) x
               where a.grantee <> g.owner),
             -- Rights that are not the usual ones: everybody may call a function and use a type.
             case when g.class <> 'pg_class'::regclass and g.acl is not null
                   and not exists (select from aclexplode(g.acl) a where a.grantee = 0) then 'not for public' end) as text
      from rights g
  ),
  item(object, definition) as (
    select format('%s %s', case r.kind when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'S' then 'sequence' else r.kind::text end, r.relname),
           concat_ws(' ', case r.relpersistence when 'u' then 'unlogged' when 't' then 'temporary' end,
             case when r.kind = 'p' then 'partitioned by ' || pg_get_partkeydef(r.oid) end,
             (select case when r.is_partition then 'partition of ' else 'inherits ' end || string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno)
                from pg_inherits i where i.inhrelid = r.oid and r.kind in ('r', 'p')),
             pg_get_expr(r.relpartbound, r.oid),
             case when r.relrowsecurity then 'row security' end, case when r.relforcerowsecurity then 'forced' end, r.reloptions::text,
             case when r.kind in ('r', 'p') and r.relreplident <> 'd' then concat('replica identity ', r.relreplident) end,
             (select 'published by ' || string_agg(p.pubname::text, ', ' order by p.pubname::text)
                from pg_publication_rel l join pg_publication p on p.oid = l.prpubid where l.prrelid = r.oid),
             (select concat_ws(' ', q.seqtypid::regtype, 'from', q.seqstart, 'by', q.seqincrement, 'between', q.seqmin, 'and', q.seqmax,
                       case when q.seqcycle then 'cycle' end, 'cache', q.seqcache,
                       (select format('of %s', pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)) from pg_depend d
                         where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')))
                from pg_sequence q where q.seqrelid = r.oid),
             nullif(g.text, ''), case when r.kind = 'v' then pg_get_viewdef(r.oid) end)
      from relation r left join given g on g.class = 'pg_class'::regclass and g.id = r.oid
    union all
    select format('column %s.%s', r.relname, a.attname),
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' end, case when a.attidentity <> '' then concat('identity ', a.attidentity) end,
             case when a.attgenerated <> '' then 'generated' end, (select 'default ' || pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = r.oid and d.adnum = a.attnum),
             case when a.attcollation <> t.typcollation then concat('collate ', a.attcollation::regcollation) end)
      from (select oid, relname from relation where kind in ('r', 'p') union all select * from composite) r
      join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped join pg_type t on t.oid = a.atttypid
    union all
    -- The home's own check holds the digest of its tenant: the audit compares that.
    select format('constraint %s.%s', r.relname, c.conname),
           concat(pg_get_constraintdef(c.oid), case when c.convalidated then '' else ' not valid' end,
             case when exists (select from pg_trigger g where g.tgconstraint = c.oid and g.tgisinternal and g.tgenabled <> 'O') then ' resting' end)
      from relation r join pg_constraint c on c.conrelid = r.oid where c.conname::text <> 'tenancy_home'
    union all
    select format('index %s', x.relname), concat(pg_get_indexdef(i.indexrelid), case when i.indisvalid then '' else ' invalid' end, case when i.indisreplident then ' replica identity' end)
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
    select format('%s %s', case p.prokind when 'a' then 'aggregate' else 'function' end, p.oid::regprocedure),
           concat_ws(' ', case when p.prokind <> 'a' then pg_get_functiondef(p.oid) else (
             select concat_ws(' ', pg_get_function_result(p.oid), p.proparallel, to_jsonb(a) - '{aggfnoid,aggtranstype,aggmtranstype,aggsortop}'::text[],
                      a.aggtranstype::regtype, nullif(a.aggmtranstype, 0)::regtype, nullif(a.aggsortop, 0)::regoperator)
               from pg_aggregate a where a.aggfnoid = p.oid) end, nullif(g.text, ''))
      from held h join pg_proc p on p.oid = h.objid left join given g on g.class = 'pg_proc'::regclass and g.id = p.oid where h.classid = 'pg_proc'::regclass
    union all
    select format('type %s', t.typname),
           concat_ws(' ', t.typtype, case when t.typtype = 'd' then concat_ws(' ', format_type(t.typbasetype, t.typtypmod), case when t.typnotnull then 'not null' end,
               'default ' || t.typdefault, case when t.typcollation <> b.typcollation then concat('collate ', t.typcollation::regcollation) end) end,
             (select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
             (select concat_ws(' ', n.rngsubtype::regtype, nullif(n.rngcollation, 0)::regcollation, nullif(n.rngsubdiff::oid, 0)::regprocedure, nullif(n.rngcanonical::oid, 0)::regprocedure)
                from pg_range n where n.rngtypid = t.oid),
             (select string_agg(format('constraint %s %s%s', c.conname, pg_get_constraintdef(c.oid), case when c.convalidated then '' else ' not valid' end), ', ' order by c.conname::text)
                from pg_constraint c where c.contypid = t.oid), nullif(g.text, ''))
      from held h join pg_type t on t.oid = h.objid left join pg_type b on b.oid = t.typbasetype
      left join given g on g.class = 'pg_type'::regclass and g.id = t.oid
     where h.classid = 'pg_type'::regclass and t.typtype in ('e', 'd', 'r', 'c')
    union all
    select format('%s %s', o.type, o.identity), ''
      from held h cross join lateral pg_identify_object(h.classid, h.objid, 0) o
     where h.classid not in ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_default_acl'::regclass, 'pg_publication_namespace'::regclass)
    union all
    select 'default privileges', string_agg(concat_ws(' ', a.defaclrole::regrole, a.defaclobjtype, a.defaclacl), ', ' order by a.oid)
      from pg_default_acl a where a.defaclrole = the_owner and a.defaclnamespace = the_home having count(*) > 0
    union all
    select 'schema', 'published by ' || string_agg(p.pubname::text, ', ' order by p.pubname::text)
      from pg_publication p where exists (select from pg_publication_namespace n where n.pnpubid = p.oid and n.pnnspid = the_home) having count(*) > 0
  )
  select replace(i.object, prefix, ''),
         replace(replace(replace(i.definition, prefix, ''), format('SET search_path TO %L', home_schema), 'SET search_path TO ''its own'''), quote_ident(login), 'its login')
    from item i;
end
$$;

grant execute on function tenancy.home_shape(name, name) to tenancy_owner;
