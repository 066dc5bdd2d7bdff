-- The cluster's roles. Run as tenancy_provisioner (CREATEROLE, CREATEDB, NOSUPERUSER), in any database, at every
-- installation: safe to repeat. Which login may use an IAM token is decided by the installer, not here.

do $$
declare wanted text;
begin
  -- Two installers at once: CREATE ROLE has no IF NOT EXISTS.
  perform pg_advisory_xact_lock(hashtext('tenancy.roles'), 0);
  foreach wanted in array array['tenancy_keeper', 'tenancy_owner', 'tenancy_tenants', 'tenancy_schemas', 'tenancy_app'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      execute format('create role %I nologin', wanted);
    end if;
  end loop;
end
$$;

-- SET, not INHERIT: the provisioner has an owner's power only in a transaction that says so.
grant tenancy_keeper to tenancy_provisioner with set true, inherit false;
grant tenancy_owner to tenancy_provisioner with set true, inherit false;

alter role tenancy_app login;

-- A role may give itself defaults: what hostile SQL has left there ends here.
alter role tenancy_app reset all;
-- A call that reaches a table without `tenancy.enter` finds nothing: only `enter` sets a path.
alter role tenancy_app set search_path = '';
alter role tenancy_app set statement_timeout = '30s';
alter role tenancy_app set lock_timeout = '5s';
alter role tenancy_app set idle_in_transaction_session_timeout = '60s';
