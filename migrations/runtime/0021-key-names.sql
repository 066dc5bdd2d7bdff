-- A key column's name beyond ASCII, or with a backslash, is written otherwise where a trigger's arguments are shown: its table
-- was refused for a capture trigger that it had. Run as tenancy_keeper.

-- The columns of a key as `encode(tgargs, 'escape')` shows the arguments of the trigger that captures it.
create function tenancy.key_arguments(columns text[]) returns text
language sql immutable as $$
  select replace(encode(convert_to(array_to_string(columns, chr(1)) || chr(1), 'UTF8'), 'escape'), chr(1), '\000')
$$;
grant execute on function tenancy.key_arguments(text[]) to tenancy_owner;

-- In the two functions of 0013 that compare them; all else of those stays.
do $$
declare
  function regprocedure;
  definition text;
begin
  foreach function in array array['tenancy.protect_relations(name[],uuid[],name[],boolean,oid[])', 'tenancy.audit_relations(name[],uuid[],name[],boolean,oid[])'] loop
    definition := regexp_replace(pg_get_functiondef(function), 'array_to_string\((k\.columns|t\.key_columns), ''\\000''\) \|\| ''\\000''', 'tenancy.key_arguments(\1)');
    if definition not like '%tenancy.key_arguments(%' then
      raise exception '% is not what 0013 made it', function;
    end if;
    execute definition;
  end loop;
end
$$;
