-- A function that is called IMMUTABLE is computed once for the plans that a PL/pgSQL function keeps as long as its session
-- lasts: what it has read of one tenant's rows was answered to others.
-- Run as tenancy_keeper.

do $$
declare
  definition text;
begin
  definition := replace(pg_get_functiondef('tenancy.audit_relations(name[],uuid[],name[],boolean,oid[])'::regprocedure),
    $sql$'is marked LEAKPROOF', 'drop LEAKPROOF' from function p where p.proleakproof
$sql$, $sql$'is marked LEAKPROOF', 'drop LEAKPROOF' from function p where p.proleakproof
  union all
  select p.home_schema, p.oid::regprocedure::text, 'is IMMUTABLE and reads a table or a setting: a session keeps its answer for other tenants', 'declare it STABLE'
    from function p where shared and p.provolatile = 'i' and (p.prosrc ~* '\m(current_setting|current_tenant)\M'
      or exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.refclassid = 'pg_class'::regclass offset 0)
      or exists (select from unnest(tenancy.home_relations(array[p.home_schema])) h(oid) cross join lateral (select relname from pg_class where oid = h.oid and relkind in ('r', 'p', 'v') offset 0) c
            where p.prosrc ~* format('\m(from|join)\s+(only\s+)?("?%s"?\s*\.\s*)?"?%s"?(\W|$)', p.home_schema, regexp_replace(c.relname, '(\W)', '\\\1', 'g'))))
$sql$);
  if position('is IMMUTABLE and reads' in definition) = 0 then
    raise exception 'tenancy.audit_relations is not what 0013 made it';
  end if;
  execute definition;
end
$$;
