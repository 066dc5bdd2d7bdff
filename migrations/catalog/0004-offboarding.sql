-- Tenants that leave, and data that comes and goes: what such operations need beyond those that make a tenant. Run as
-- tenancy_keeper.

alter table catalog.operations drop constraint operations_kind_check,
  add constraint operations_kind_check check (kind in ('provision', 'offboard', 'migrate', 'move', 'export', 'import')),
  -- Cancelled: undone on purpose before it had done harm, which is no failure.
  drop constraint operations_state_check,
  add constraint operations_state_check check (state in ('running', 'done', 'failed', 'cancelled'));

alter table catalog.tenants
  -- From here on an offboarding can't be undone: the first of the tenant's data may be gone.
  add column removal_begun_at timestamptz,
  add column offboarded_at timestamptz,
  add check ((status = 'offboarded') = (offboarded_at is not null));

-- The row of an offboarded tenant is its tombstone: whatever still holds the tenant's id or slug (a token, a retried
-- request, an execution that was thought dead) finds it and brings nothing back.
create function catalog.keep_tombstone() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if old.status = 'offboarded' and (tg_op = 'DELETE' or (new.status, new.slug, new.tenant_id, new.home_id, new.offboarded_at)
      is distinct from (old.status, old.slug, old.tenant_id, old.home_id, old.offboarded_at)) then
    raise exception 'an offboarded tenant stays offboarded' using errcode = 'TN010';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;
create trigger keep_tombstone before update or delete on catalog.tenants
  for each row execute function catalog.keep_tombstone();

create function catalog.refuse_offboarded() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- The share lock waits for an offboarding that is just being recorded.
  perform from catalog.tenants where tenant_id = new.tenant_id and status = 'offboarded' for share;
  if found then
    raise exception 'the tenant is offboarded' using errcode = 'TN010';
  end if;
  return new;
end
$$;
create trigger refuse_offboarded before insert or update on catalog.homes
  for each row execute function catalog.refuse_offboarded();
create trigger refuse_offboarded before insert or update on catalog.api_keys
  for each row execute function catalog.refuse_offboarded();

grant delete on catalog.api_keys to tenancy_provisioner;
