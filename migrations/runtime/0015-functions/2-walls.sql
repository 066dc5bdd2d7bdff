-- Whose rows a statement may touch, for the policies of shared tables and the mover's log of changes. Run as tenancy_keeper.

-- The wall of the shared tables: policies compare tenant_id with it, in a subquery, so that it is asked once in every statement.
-- What tool SQL may have written into the settings is worth nothing without the secret that a pass is made with. Null, which is
-- nobody's, in a migration or move: those have a policy of their own, and no pass but a signed context (see
-- `maintained_tenants`). Every other doubt raises.
create or replace function tenancy.current_tenant() returns uuid
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  tenant text := current_setting('tenancy.tenant', true);
  context text;
begin
  if current_setting('tenancy.pass', true) = tenancy.pass(tenant) then
    return tenant;
  end if;
  context := current_setting('tenancy.context', true);
  perform from tenancy.keys k
   where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad)
     and split_part(context, '.', 7) in ('migrate', 'move')
     and split_part(context, '.', 9) >= extract(epoch from now())::text collate "C";
  if not found then
    perform tenancy.refuse(context);
  end if;
  return null;
end
$$;

-- For the owner's maintenance policy: whose rows a migration or move may touch. Raises without a context of such a purpose: an
-- owner's backfill would otherwise report UPDATE 0. A migration of the shared tables has a context for every tenant, and the
-- setting says for whom a statement of it runs: each tenant in turn, so that what it joins, and whatever function or trigger it
-- calls, finds no other's. TN011: for nobody.
--
-- The server's own check of a foreign key (it is added, validated, or a column of it gets another type) asks for all, and nothing that runs
-- beside it: an ALTER TABLE may compute columns and checks too, by functions that look rows up. The stack says who asks, whatever the
-- server's language: its second line is that statement, which is one line whatever it checks, and the third begins with the ALTER TABLE
-- that it is for: no function or block with a query like it, one that is called `alter` neither, nor a built-in that runs a text as SQL
-- (`query_to_xml`).
create or replace function tenancy.maintained_tenants() returns uuid[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  context text := current_setting('tenancy.context', true);
  part text[] := string_to_array(context, '.');
  asked text := current_setting('tenancy.maintained', true);
  stack text;
  asker text;
begin
  perform from tenancy.keys k
   where k.key_id = part[2] and k.database_id::text = part[3] and tenancy.signed(context, k.inner_pad, k.outer_pad);
  if not found or part[7] not in ('migrate', 'move') or part[9]::bigint < extract(epoch from now()) then
    perform tenancy.refuse(context);
  end if;
  if part[4]::uuid <> '00000000-0000-0000-0000-000000000000' then
    return array[part[4]::uuid];
  end if;
  get diagnostics stack = pg_context;
  asker := split_part(stack, E'\n', 3);
  if split_part(stack, E'\n', 2) ~ '^[^"]*.SELECT fk\.".* LEFT OUTER JOIN .* pk ON \( pk\."'
     and (asker = '' or asker ~* '^[^"]*\W(alter|create)(\s|$)' and asker !~ '" \w+ \d+$|^[^"]*"[^"]*"[.(]' and stack ~* '\malter\s+table\M')
     and stack !~* '_to_xml|ts_stat|ts_rewrite|\mu&"' then
    return array(select h.tenant_id from tenancy.homes h);
  elsif coalesce(asked, '') = '' then
    perform from tenancy.refusals;
    raise exception 'rows of tenants are reached for none of them' using errcode = 'TN011';
  end if;
  return array[asked::uuid];
end
$$;

-- Writes the key of every changed row while its tenant is being moved; `open_home` raises the flag that the triggers look at. Its
-- arguments are the primary key's columns. Each is in the text that PostgreSQL itself reads back: JSON has no bounds of arrays,
-- and no difference between a jsonb null and none. `concat` takes a type's own output function, never a cast that a migration has
-- made: that would run with the keeper's rights. What such a text depends on is fixed here, because a session's settings are the
-- tools' own. Not the whole row as JSON: that fails where a column of type json holds what jsonb refuses, and reads every long
-- value of it. Which columns these are is known only here, so that the expression is planned for each row: some tens of
-- microseconds more than the whole row as JSON where it is short, half as much where it is long. It is looked for before
-- it is read: `($1).name` is a column, or else a function of that name, which takes the row by a cast that a migration has made. To name
-- the columns in a query over the row took three times as long where it has a hundred of them. Nor is whose a row is cast by anything but
-- the server's own reading of a text.
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
    perform from pg_attribute a where a.attrelid = tg_relid and a.attname = c::name and a.attnum > 0 and not a.attisdropped;
    if not found then
      raise exception 'column "%" does not exist', c using errcode = '42703';
    end if;
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
    insert into tenancy.changes (tenant_id, schema_name, table_name, key) values (concat(old.tenant_id)::uuid, tg_table_schema, tg_table_name, before);
  end if;
  if after is not null and after is distinct from before then
    insert into tenancy.changes (tenant_id, schema_name, table_name, key) values (concat(new.tenant_id)::uuid, tg_table_schema, tg_table_name, after);
  end if;
  return null;
end
$$;

grant execute on function tenancy.current_tenant() to tenancy_app, tenancy_tenants, tenancy_owner;
grant execute on function tenancy.maintained_tenants(), tenancy.capture() to tenancy_owner;
