-- What the migrator completes on the tables of a home, in the migration's own transaction and as tenancy_owner. Each
-- piece is added only where it is missing: a table that a migration did not touch is not locked.
-- `_migrations` is the migrator's own table: no tenant has a right on it.

-- Writes the key of every changed row while its tenant is being moved; `enter` raises the flag that the triggers look at.
-- Its arguments are the primary key's columns.
create function tenancy.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  before jsonb;
  after jsonb;
begin
  if tg_op <> 'INSERT' then
    select jsonb_object_agg(c, to_jsonb(old) -> c) into before from unnest(tg_argv) c;
    insert into tenancy.changes (tenant_id, schema_name, table_name, key) values (old.tenant_id, tg_table_schema, tg_table_name, before);
  end if;
  if tg_op <> 'DELETE' then
    select jsonb_object_agg(c, to_jsonb(new) -> c) into after from unnest(tg_argv) c;
    if before is distinct from after then
      insert into tenancy.changes (tenant_id, schema_name, table_name, key) values (new.tenant_id, tg_table_schema, tg_table_name, after);
    end if;
  end if;
  return null;
end
$$;

create function tenancy.home_tables(home_schema name) returns table (relation regclass, is_partition boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select oid::regclass, relispartition from pg_class
   where relnamespace = (select oid from pg_namespace where nspname = home_schema)
     and relkind in ('r', 'p') and relname <> '_migrations'
   order by oid
$$;

create function tenancy.primary_key(relation regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
  select array_agg(a.attname::text order by k.position)
    from pg_constraint c, unnest(c.conkey) with ordinality k(attnum, position), pg_attribute a
   where c.conrelid = relation and c.contype = 'p' and a.attrelid = relation and a.attnum = k.attnum
$$;

create function tenancy.tenant_default(relation regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d, pg_attribute a
   where d.adrelid = relation and a.attrelid = relation and a.attname = 'tenant_id' and d.adnum = a.attnum
$$;

-- What the tables and views of every strategy need; `grantee` is the one login that works with them.
create function tenancy.protect_common(home_schema name, grantee name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  item record;
  key_columns text[];
begin
  execute format('grant usage on schema %I to %I', home_schema, grantee);
  for item in select c.oid::regclass as relation from pg_class c
      where c.relnamespace = (select oid from pg_namespace where nspname = home_schema)
        and c.relkind in ('r', 'p', 'v') and c.relname <> '_migrations' and not c.relispartition
        and not has_table_privilege(grantee, c.oid, 'select')
  loop
    execute format('grant select, insert, update, delete on %s to %I', item.relation, grantee);
  end loop;
  for item in select c.oid::regclass as relation from pg_class c
      where c.relnamespace = (select oid from pg_namespace where nspname = home_schema)
        and c.relkind = 'v' and not coalesce(c.reloptions @> '{security_invoker=true}', false)
  loop
    execute format('alter view %s set (security_invoker = true)', item.relation);
  end loop;
  for item in select h.relation from tenancy.home_tables(home_schema) h, pg_attribute a
      where a.attrelid = h.relation and a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype and not a.atthasdef
  loop
    -- Read from the setting, which tool SQL can change: policy or constraint verify what it says.
    execute format('alter table %s alter column tenant_id set default nullif(current_setting(''tenancy.tenant'', true), '''')::uuid', item.relation);
  end loop;
  -- A move applies changes in an order of its own.
  for item in select c.conrelid::regclass as relation, c.conname from pg_constraint c, tenancy.home_tables(home_schema) t
      where c.conrelid = t.relation and c.contype = 'f' and not c.condeferrable and c.conparentid = 0
  loop
    execute format('alter table %s alter constraint %I deferrable initially immediate', item.relation, item.conname);
  end loop;
  -- A partition has its parent's trigger.
  for item in select relation from tenancy.home_tables(home_schema) where not is_partition loop
    key_columns := tenancy.primary_key(item.relation);
    continue when key_columns is null or exists (
      select from pg_trigger where tgrelid = item.relation and tgname = 'tenancy_capture'
         and encode(tgargs, 'escape') = array_to_string(key_columns, '\000') || '\000');
    execute format(
      'create or replace trigger tenancy_capture after insert or update or delete on %s for each row '
      'when (current_setting(''tenancy.capture'', true) = ''1'') execute function tenancy.capture(%s)',
      item.relation, (select string_agg(quote_literal(c), ', ') from unnest(key_columns) c));
  end loop;
end
$$;

-- Shared tables. The rows' policy is for PUBLIC: a login may say DROP OWNED BY itself, which drops the policies that name
-- it, and all its neighbours would find nothing any more. The guard (a permissive policy added later widens nothing) can be
-- lost in that way without harm. It is for the app's login alone: to PUBLIC it would bind the owner too, whose backfills
-- would then report UPDATE 0 and whose foreign keys would be validated over orphans, silently. The owner has a policy of
-- its own, which raises unless the transaction holds a signed context for maintenance.
create function tenancy.protect_shared(home_schema name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  t record;
  own constant text := 'tenant_id = (select tenancy.current_tenant())';
  maintained constant text := '(select tenancy.maintained_tenant()) is null or tenant_id = (select tenancy.maintained_tenant())';
begin
  perform tenancy.protect_common(home_schema, 'tenancy_app');
  for t in select h.relation from tenancy.home_tables(home_schema) h, pg_attribute a
      where a.attrelid = h.relation and a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype
  loop
    if exists (select from pg_class where oid = t.relation and not (relrowsecurity and relforcerowsecurity)) then
      execute format('alter table %s enable row level security, force row level security', t.relation);
    end if;
    if not exists (select from pg_policy where polrelid = t.relation and polname = 'tenancy_guard') then
      execute format('create policy tenancy_guard on %s as restrictive for all to tenancy_app using (%s) with check (%s)', t.relation, own, own);
    end if;
    if not exists (select from pg_policy where polrelid = t.relation and polname = 'tenancy_rows') then
      execute format('create policy tenancy_rows on %s for all to public using (%s) with check (%s)', t.relation, own, own);
    end if;
    if not exists (select from pg_policy where polrelid = t.relation and polname = 'tenancy_maintenance') then
      execute format('create policy tenancy_maintenance on %s for all to tenancy_owner using (%s) with check (%s)', t.relation, maintained, maintained);
    end if;
  end loop;
end
$$;

-- A tenant's own tables: no row security (its login's grants are the wall), but no row may name another tenant, so that
-- none can be planted here and carried into shared tables later. By its digest: every login of the cluster can read
-- pg_constraint, which shall not be a list of our tenants.
create function tenancy.protect_owned(home_schema name, tenant uuid, login name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  t record;
begin
  perform tenancy.protect_common(home_schema, login);
  for t in select h.relation from tenancy.home_tables(home_schema) h, pg_attribute a
      where a.attrelid = h.relation and a.attname = 'tenant_id' and a.atttypid = 'uuid'::regtype
  loop
    if not exists (select from pg_constraint where conrelid = t.relation and conname = 'tenancy_home') then
      execute format('alter table %s add constraint tenancy_home check (sha256(uuid_send(tenant_id)) = %L::bytea)', t.relation, sha256(uuid_send(tenant)));
    end if;
  end loop;
end
$$;

grant execute on function tenancy.home_tables(name), tenancy.primary_key(regclass), tenancy.tenant_default(regclass),
  tenancy.capture(), tenancy.protect_common(name, name), tenancy.protect_shared(name), tenancy.protect_owned(name, uuid, name)
  to tenancy_owner;
