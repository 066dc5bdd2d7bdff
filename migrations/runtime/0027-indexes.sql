-- An index of a shared table has tenant_id among its columns. What can't leak is looked up in one without it among all tenants'
-- values before the wall is asked, and whether it was asked, or PostgreSQL's own counts, tell whether anybody has such a row.
-- Not asked of GIN, GiST and SP-GiST: few of their conditions are known not to leak, and a uuid needs an extension there.
-- Run as tenancy_keeper.

do $$
declare
  definition text;
begin
  definition := replace(pg_get_functiondef('tenancy.audit_relations(name[],uuid[],name[],boolean,oid[])'::regprocedure),
    $sql$
  -- Kinds of objects that go round the wall.
$sql$, $sql$  union all
  select t.home_schema, i.indexrelid::regclass::text, 'is looked up in before the wall: whether anybody has a value could be told',
         'add tenant_id to its columns, at its end where tools look up by the others'
    from tenant_table t cross join lateral (
          select x.indexrelid, x.indkey, x.indnkeyatts from pg_index x join pg_class c on c.oid = x.indexrelid join pg_am m on m.oid = c.relam
           where x.indrelid = t.oid and not (x.indisunique or x.indisexclusion) and m.amname not in ('gin', 'gist', 'spgist') offset 0) i
   where shared and not coalesce(t.tenant_column = any (i.indkey[0:i.indnkeyatts - 1]), false)

  -- Kinds of objects that go round the wall.
$sql$);
  if position('is looked up in before the wall' in definition) = 0 then
    raise exception 'tenancy.audit_relations is not what 0013 made it';
  end if;
  execute definition;
end
$$;
