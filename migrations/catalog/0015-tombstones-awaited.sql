-- A tombstone that is just being recorded is waited for. Run as tenancy_keeper.

-- By its id alone: while the offboarding is not committed its row still says another status, so a condition on that would pass
-- it by. Only what is new needs it; what is changed an offboarding deletes, and waits for it.
create or replace function catalog.refuse_offboarded() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    perform from catalog.tenants where tenant_id = new.tenant_id for share;
  end if;
  if exists (select from catalog.tenants where tenant_id = new.tenant_id and status = 'offboarded') then
    raise exception 'the tenant is offboarded' using errcode = 'TN010';
  end if;
  return new;
end
$$;
