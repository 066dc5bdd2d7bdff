-- As in 0002, but a key is made of its own columns alone. The whole row as JSON failed where a column of type json holds what
-- jsonb refuses, and read every long value of it. Each column is in the text that PostgreSQL itself reads back: JSON has no
-- bounds of arrays, and no difference between a jsonb null and none. `concat` takes a type's own output function, never a
-- cast that a migration has made: that would run with the keeper's rights. What such a text depends on is fixed here, because
-- a session's settings are the tools' own. Which columns these are is known only here, so that the expression is planned for
-- each row: some tens of microseconds more than the whole row as JSON where it is short, half as much where it is long.
create or replace function tenancy.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres' set bytea_output = 'hex' set lc_monetary = 'C' set extra_float_digits = 1 as $$
declare
  c text;
  pairs text;
  before jsonb;
  after jsonb;
begin
  foreach c in array tg_argv loop
    pairs := concat_ws(', ', pairs, quote_literal(c), concat('concat(($1).', quote_ident(c), ')'));
  end loop;
  if tg_op = 'UPDATE' then
    execute format('select jsonb_build_object(%s), jsonb_build_object(%s)', pairs, replace(pairs, '($1)', '($2)'))
       into before, after using old, new;
  elsif tg_op = 'DELETE' then
    execute format('select jsonb_build_object(%s)', pairs) into before using old;
  else
    execute format('select jsonb_build_object(%s)', pairs) into after using new;
  end if;
  if before is not null then
    insert into tenancy.changes (tenant_id, schema_name, table_name, key) values (old.tenant_id, tg_table_schema, tg_table_name, before);
  end if;
  if after is not null and after is distinct from before then
    insert into tenancy.changes (tenant_id, schema_name, table_name, key) values (new.tenant_id, tg_table_schema, tg_table_name, after);
  end if;
  return null;
end
$$;
