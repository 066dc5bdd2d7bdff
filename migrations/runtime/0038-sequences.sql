-- A sequence is refused that no tenant may draw from: in shared tables it would be over all of them, so no login has a right on it,
-- and a tool that drew from it would fail at its first call. Left are those of identity columns, and of tables for reading only,
-- whose rows migrations alone write. Run as tenancy_keeper.

do $$
declare
  definition text := pg_get_functiondef('tenancy.audit_relations(name[],uuid[],name[],boolean,oid[])'::regprocedure);
  before constant text := $sql$  select p.home_schema, p.oid::regprocedure::text, 'is marked LEAKPROOF'$sql$;
begin
  if position(before in definition) = 0 then
    raise exception 'tenancy.audit_relations is not what this file was written for';
  end if;
  execute replace(definition, before, $sql$  select r.home_schema, r.name::text, 'is a sequence that no tenant may draw from: it would be over all of them',
         'leave it out; for numbers use `generated always as identity`, or a table with a row that counts'
    from relation r
   where r.kind = 'S' and not exists (
         select from pg_depend d
          where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
            and (d.deptype = 'i' or d.deptype = 'a' and tenancy.is_reference(d.refobjid, false, r.login)) offset 0)
  union all
$sql$ || before);
end
$$;
