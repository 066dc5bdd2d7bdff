-- The one login of the data plane in the catalog's database. Run as tenancy_provisioner before the catalog's migrations:
-- safe to repeat.

do $$
begin
  perform pg_advisory_xact_lock(hashtext('tenancy.roles'), 0);
  if not exists (select from pg_roles where rolname = 'tenancy_catalog_reader') then
    create role tenancy_catalog_reader login;
  end if;
end
$$;

alter role tenancy_catalog_reader set search_path = '';
alter role tenancy_catalog_reader set statement_timeout = '5s';
alter role tenancy_catalog_reader set lock_timeout = '1s';
alter role tenancy_catalog_reader set idle_in_transaction_session_timeout = '10s';
