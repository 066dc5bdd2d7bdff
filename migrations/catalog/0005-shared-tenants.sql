-- A tenant on shared tables in two statements here and one in its home. Run as tenancy_keeper; called by the provisioner, with
-- its own rights.

-- Records a new tenant, its home and the operation. No row: there is something of that name, key or organisation already,
-- and the way of many statements says what.
create function catalog.begin_shared(
  new_slug text, new_tier text, new_issuer text, new_external_id text, new_home uuid, new_schema name, new_login name,
  new_operation uuid, new_input jsonb, new_key text, new_digest text)
returns table (tenant_id uuid, created_at timestamptz, cluster_id uuid, host text, port integer, admin_host text, admin_port integer,
               database_name name, schema_version text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  shared catalog.clusters;
  made catalog.tenants;
begin
  select * into shared from catalog.clusters where kind = 'shared' and database_id is not null order by created_at limit 1;
  if not found or exists (select from catalog.tenants where slug = new_slug) or exists (select from catalog.operations where idempotency_key = new_key) then
    return;
  end if;
  insert into catalog.tenants (slug, tier, strategy, issuer, external_id) values (new_slug, new_tier, 'rls', new_issuer, new_external_id)
    returning * into made;
  insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, epoch, state)
    values (new_home, made.tenant_id, shared.cluster_id, 'rls', shared.database_name, shared.database_id, new_schema, new_login, 1, 'provisioning');
  insert into catalog.operations (operation_id, kind, tenant_id, input, idempotency_key, request_digest)
    values (new_operation, 'provision', made.tenant_id, new_input, new_key, new_digest);
  insert into catalog.operation_steps (operation_id, step, attempt) values (new_operation, 'createHome', 1);
  return query select made.tenant_id, made.created_at, shared.cluster_id, shared.host, shared.port, shared.admin_host, shared.admin_port,
                      shared.database_name, shared.schema_version;
exception when unique_violation then
  -- Somebody was quicker between the look and the insert.
  return;
end
$$;

-- The home is open: so is the tenant. Safe to repeat; a tenant that was closed meanwhile stays closed.
create function catalog.end_shared(made_tenant uuid, made_home uuid, made_operation uuid)
returns table (status text, started_at timestamptz, finished_at timestamptz)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  update catalog.homes set state = 'open' where home_id = made_home and tenant_id = made_tenant and state = 'provisioning';
  update catalog.tenants set home_id = made_home, status = 'active', updated_at = now()
   where tenant_id = made_tenant and status in ('provisioning', 'failed');
  update catalog.operation_steps set outcome = 'done', finished_at = now()
   where operation_id = made_operation and step = 'createHome' and outcome = 'running';
  insert into catalog.operation_steps (operation_id, step, attempt, outcome, finished_at)
    values (made_operation, 'activate', 1, 'done', now()) on conflict do nothing;
  update catalog.operations set state = 'done', finished_at = now() where operation_id = made_operation and state = 'running';
  return query select t.status, o.started_at, o.finished_at from catalog.tenants t, catalog.operations o
                where t.tenant_id = made_tenant and o.operation_id = made_operation;
end
$$;

grant execute on function catalog.begin_shared(text, text, text, text, uuid, name, name, uuid, jsonb, text, text),
  catalog.end_shared(uuid, uuid, uuid) to tenancy_provisioner;
