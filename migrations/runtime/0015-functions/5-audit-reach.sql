-- The audit of what reaches beyond a home, and the whole of it. Run as tenancy_keeper.

-- Whether a function could reach a table, or change one: by its text, because nobody else tells. Its names of operations and what
-- only looks like a clause are left out; so are lines that are comments, but for those that could end a quote or a longer comment
-- which began before them: what follows on such a line is read. Built-ins that run a text as SQL count, and names in escapes.
create or replace function tenancy.has_statements(function oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case
      when l.lanname in ('internal', 'c') then false
      when l.lanname not in ('sql', 'plpgsql') then true
      -- Kept as PostgreSQL has read it, with every table, by its number: as a text it has a FROM also where there is none.
      when p.prosqlbody is not null then p.prosqlbody::text ~ ':rtekind 0 '
        or pg_get_function_sqlbody(p.oid) ~* '\m((query|table|cursor|schema|database)_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table)\M'
      else regexp_replace(p.prosrc,
             '''(insert|update|delete|truncate)''|\mdistinct[ \t]+from\M|\mextract[ \t]*\([ \t]*\w+[ \t]+from\M|^\s*--[^\n\r''"$*]*\r?$', ' ', 'gin')
           ~* concat('\m(from|table|insert|update|delete|merge|truncate|lock|copy|create|alter|drop|grant|revoke|',
                '(query|table|cursor|schema|database)_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table|',
                case l.lanname when 'sql' then 'join|into' else 'select|perform|execute|call' end, ')\M|\mdo\s+(language\M|[$''])|\mu&"')
    end
    from pg_proc p join pg_language l on l.oid = p.prolang where p.oid = function
$$;

-- What reaches beyond a home. Its owner, tenancy_owner, owns every home of the database: what runs with its rights, or was
-- written by a migration under another schema's name, passes every wall. Of these homes of one kind, and of these tables of theirs.
--
-- A foreign key's action (`on delete cascade`, `set null`) runs as the owner of its table and past row-level security. What that
-- runs inside it has these rights: triggers BEFORE, conditions of triggers, CHECK constraints, generated columns, defaults. A function
-- of the home's read and changed other tenants' rows there, in shared tables as they stand, in a tenant's own by a search_path that
-- its caller had set. Triggers AFTER fire as the caller.
--
-- Where a function hangs on something that no table shows (a domain, cast or operator is used wherever a value of a type is made), or on what the
-- server itself calls as the owner (it analyses a table by the expressions of its indexes and statistics, and hands them everybody's
-- values), no key is asked for.
--
-- A function runs what those run that it names: all of the home's that can be reached so. Whatever a file changes about keys,
-- triggers or functions, all of the home's functions are asked.
create or replace function tenancy.audit_reach(home_schemas name[], logins name[], relations oid[])
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  -- Built-ins that run a text as SQL, as they stand in a stored expression.
  runs_text constant text := (
    select format(':funcid (%s) ', string_agg(p.oid::text, '|')) from pg_proc p
     where p.proname = any (array['ts_stat', 'ts_rewrite'] || array(
             select format('%s_to_%s', f.source, t.target)
               from unnest('{query,table,cursor,schema,database}'::text[]) f(source), unnest('{xml,xmlschema,xml_and_xmlschema}'::text[]) t(target))));
begin
  return query
  with recursive home as materialized (
    select h.home_schema, h.login, to_regnamespace(quote_ident(h.home_schema))::oid as oid, to_regrole(quote_ident(h.login))::oid as grantee
      from unnest(home_schemas, logins) h(home_schema, login)
  ),
  function as materialized (
    select h.home_schema, p.* from home h
     cross join lateral (
           select objid from pg_depend d
            where d.refclassid = 'pg_namespace'::regclass and d.refobjid = h.oid and d.classid = 'pg_proc'::regclass offset 0) d
      join pg_proc p on p.oid = d.objid
  ),
  -- What calls a function by itself. `always`: whichever keys there are.
  called as materialized (
    select f.home_schema, f.oid as function, u.relation, u.name, u.deletes, u.updates, u.columns, u.always
      from function f
     cross join lateral (
           select classid, objid from pg_depend where refclassid = 'pg_proc'::regclass and refobjid = f.oid
              and classid not in ('pg_proc'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass) offset 0) d
     cross join lateral (
           select g.tgrelid as relation, format('%s.%s', g.tgrelid::regclass, g.tgname) as name,
                  g.tgtype & 8 = 8 as deletes, g.tgtype & 16 = 16 or t.is_parted as updates,
                  case when t.is_parted then '{}' else g.tgattr::int2[] end as columns, false as always
             from pg_trigger g
            -- A row that a key's action moves to another partition is deleted and inserted.
            cross join lateral (select c.relispartition or c.relkind = 'p' as is_parted from pg_class c where c.oid = g.tgrelid offset 0) t
            where d.classid = 'pg_trigger'::regclass and g.oid = d.objid and (g.tgtype & 2 = 2 or g.tgfoid <> f.oid)
           union all
           select c.conrelid, format('%s.%s', c.conrelid::regclass, c.conname), false, true, '{}', false from pg_constraint c
            where d.classid = 'pg_constraint'::regclass and c.oid = d.objid and c.contype = 'c' and c.conrelid <> 0
           union all
           select a.adrelid, format('%s.%s', a.adrelid::regclass, n.attname), false, true, '{}', false from pg_attrdef a
             join pg_attribute n on n.attrelid = a.adrelid and n.attnum = a.adnum where d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
           union all
           select 0, o.identity, false, false, '{}', true from pg_identify_object(d.classid, d.objid, 0) o
            where d.classid not in ('pg_trigger'::regclass, 'pg_attrdef'::regclass)
              and not exists (select from pg_constraint c where d.classid = 'pg_constraint'::regclass and c.oid = d.objid and c.conrelid <> 0)) u
  ),
  -- Of these, what runs as the owner. The columns of a trigger for all of them are no '{}': the server keeps them as a vector.
  risky as materialized (
    select * from called c
     where c.always or exists (
           select from pg_constraint k
            where k.conrelid = c.relation and k.contype = 'f'
              and (c.deletes and k.confdeltype = 'c'
                or c.updates and (k.confdeltype in ('n', 'd') or k.confupdtype in ('c', 'n', 'd')) and (cardinality(c.columns) = 0 or c.columns && k.conkey)) offset 0)
  ),
  reached(home_schema, used, function) as (
    select r.home_schema, r.function, r.function from risky r
    union
    select r.home_schema, r.used, other.oid
      from reached r join function f on f.oid = r.function
      join function other on other.home_schema = r.home_schema and other.oid <> f.oid
     where f.prosrc ~* format('(^|\W)%s(\W|$)', regexp_replace(other.proname, '(\W)', '\\\1', 'g'))
        or exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = f.oid and d.refclassid = 'pg_proc'::regclass and d.refobjid = other.oid)
  ),
  -- What of tables and domains is evaluated as the owner, in the server's own form.
  expression as (
    select h.home_schema, r.oid::regclass::text as name, e.tree
      from unnest(relations) given(relation)
     cross join lateral (select c.oid, c.relnamespace from pg_class c where c.oid = given.relation and c.relkind in ('r', 'p') offset 0) r
      join home h on h.oid = r.relnamespace
     cross join lateral (
           select concat(i.indexprs, i.indpred) as tree from pg_index i where i.indrelid = r.oid and (i.indexprs is not null or i.indpred is not null)
           union all select s.stxexprs::text from pg_statistic_ext s where s.stxrelid = r.oid
           union all
           select acted.tree from (
             select from pg_constraint k where k.conrelid = r.oid and k.contype = 'f' and (k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd')) limit 1) k
            cross join lateral (
             select c.conbin::text from pg_constraint c where c.conrelid = r.oid and c.conbin is not null
             union all select a.adbin::text from pg_attrdef a where a.adrelid = r.oid
             union all select g.tgqual::text from pg_trigger g where g.tgrelid = r.oid and g.tgqual is not null
             union all select p.partexprs::text from pg_partitioned_table p where p.partrelid = r.oid offset 0) acted(tree)) e
    union all
    select h.home_schema, t.oid::regtype::text, concat(t.typdefaultbin, (select string_agg(c.conbin::text, ' ') from pg_constraint c where c.contypid = t.oid))
      from home h
     cross join lateral (
           select objid from pg_depend d
            where d.refclassid = 'pg_namespace'::regclass and d.refobjid = h.oid and d.classid = 'pg_type'::regclass offset 0) d
      join pg_type t on t.oid = d.objid and t.typtype = 'd'
  )
  select f.home_schema, f.oid::regprocedure::text, 'is a SECURITY DEFINER function: it runs with the rights of the owner of all homes', 'drop SECURITY DEFINER'
    from function f where f.prosecdef
  union all
  -- Whoever is connected to the database hears a notification; a large object is the login's, which shared tables' tenants have in common.
  select f.home_schema, f.oid::regprocedure::text, 'passes values on where there is no wall: in notifications or large objects', 'write them into a table of the home'
    from function f where coalesce(pg_get_function_sqlbody(f.oid), f.prosrc) ~* '\m(pg_notify|lo_(from_bytea|put|import|creat|create)|lowrite)\M'
  union all
  select c.home_schema, c.name, format('runs statements, in the function %s, with the rights of the owner of all homes when %s',
           string_agg(distinct p.proname, ', '),
           case when c.always then 'the server analyses a table, or a foreign key changes its rows' else 'a foreign key of its table deletes or changes rows' end),
         case when c.always then 'let it call functions without statements only, and look rows up in a trigger AFTER'
           else 'make it a trigger AFTER, or the key `on delete no action on update no action` and let tools delete or change those rows' end
         -- Of a text nobody tells whether what it reads from is a table.
         || case when bool_or(l.lanname = 'sql' and p.prosqlbody is null)
              then '; where it reads no table (`from unnest($1)`), write the function''s body as `return (select …)` or `begin atomic … end`, not as a text' else '' end
         || case when bool_or(l.lanname = 'plpgsql')
              then '; words of statements (`select`, `from`, `delete`) count wherever they stand in it, in a message too' else '' end
    from risky c
    join reached r on r.used = c.function and r.home_schema = c.home_schema
    join pg_proc p on p.oid = r.function
    join pg_language l on l.oid = p.prolang
   where tenancy.has_statements(r.function)
   group by c.home_schema, c.name, c.always
  union all
  select distinct e.home_schema, e.name, 'has an expression that runs a text as SQL: it has the rights of the owner of all homes when a foreign key changes rows',
         'look rows up in a trigger AFTER'
    from expression e where e.tree ~ runs_text
  union all
  -- A table for reading only has the same rows for every tenant. With such a column it has not.
  select h.home_schema, r.oid::regclass::text, 'has a column tenant_id that is not uuid',
         'declare `tenant_id uuid not null`, or name it otherwise where the rows are every tenant''s'
    from unnest(relations) given(relation)
   cross join lateral (
         select c.oid, c.relnamespace from pg_class c where c.oid = given.relation and c.relkind in ('r', 'p') and c.relname <> '_migrations' offset 0) r
    join home h on h.oid = r.relnamespace
   where exists (select from pg_attribute a where a.attrelid = r.oid and a.attname = 'tenant_id' and a.atttypid <> 'uuid'::regtype and not a.attisdropped)
     and tenancy.is_reference(r.oid, false, h.login)
  union all
  -- Who reads a parent reads its children's rows too, by the parent's wall.
  select distinct h.home_schema, i.inhrelid::regclass::text, format('inherits from %s, through which every tenant would read its rows', i.inhparent::regclass),
         'leave out `inherits`: `like` copies columns'
    from unnest(relations) given(relation)
   cross join lateral (
         select inhrelid, inhparent from pg_inherits where inhrelid = given.relation
         union all select inhrelid, inhparent from pg_inherits where inhparent = given.relation offset 0) i
    join pg_class parent on parent.oid = i.inhparent
    join home h on h.oid = parent.relnamespace
   where tenancy.is_reference(parent.oid, false, h.login)
     and exists (select from pg_attribute a where a.attrelid = i.inhrelid and a.attname = 'tenant_id' and not a.attisdropped)
     and not exists (select from pg_attribute a where a.attrelid = parent.oid and a.attname = 'tenant_id' and not a.attisdropped)
  union all
  select h.home_schema, c.oid::regclass::text, format('is not of the home, and is granted to %s', h.login), format('revoke all on %s from %I', c.oid::regclass, h.login)
    from home h
   cross join lateral (
         select s.objid from pg_shdepend s
          where s.refclassid = 'pg_authid'::regclass and s.refobjid = h.grantee and s.classid = 'pg_class'::regclass and s.deptype = 'a'
            and s.dbid = (select oid from pg_database where datname = current_database()) offset 0) s
    join pg_class c on c.oid = s.objid
   where c.relnamespace <> h.oid;
end
$$;

create or replace function tenancy.audit_homes(home_schemas name[], tenants uuid[], logins name[], shared boolean)
returns table (home_schema name, object text, finding text, remedy text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select * from tenancy.audit_relations(home_schemas, tenants, logins, shared, tenancy.home_relations(home_schemas))
  union all
  select * from tenancy.audit_reach(home_schemas, logins, tenancy.home_relations(home_schemas))
$$;

grant execute on function tenancy.has_statements(oid), tenancy.audit_reach(name[], name[], oid[]),
  tenancy.audit_homes(name[], uuid[], name[], boolean) to tenancy_owner;
