-- Long-running changes to a tenant, with each step's attempts: what an operator reads when something went wrong, and what
-- a repeated step looks at to know what is already there. Run as tenancy_keeper.

create table catalog.operations (
  operation_id uuid primary key,
  kind text not null check (kind in ('provision', 'offboard', 'migrate', 'move')),
  tenant_id uuid references catalog.tenants,
  state text not null default 'running' check (state in ('running', 'done', 'failed')),
  -- What was asked for, and what was decided at the start: a step reads its parameters here, never from its caller.
  input jsonb not null,
  -- The caller's: the same key with the same request is the same operation, with another request a conflict.
  idempotency_key text unique check (length(idempotency_key) between 1 and 200),
  request_digest text not null,
  failed_step text,
  reason text,
  started_at timestamptz not null default now(),
  finished_at timestamptz
);
-- Two operations on one tenant at once: the second is refused.
create unique index operations_running on catalog.operations (tenant_id) where state = 'running';
create index operations_started on catalog.operations (started_at desc);

create table catalog.operation_steps (
  operation_id uuid not null references catalog.operations,
  step text not null check (length(step) between 1 and 40),
  attempt integer not null,
  outcome text not null default 'running' check (outcome in ('running', 'done', 'failed')),
  reason text,
  started_at timestamptz not null default now(),
  finished_at timestamptz,
  primary key (operation_id, step, attempt)
);

grant select, insert, update on catalog.operations, catalog.operation_steps to tenancy_provisioner;
-- The database of a shared cluster in which new homes are made.
alter table catalog.clusters add column database_name name, add column database_id uuid,
  add check ((database_name is null) = (database_id is null));

-- A home that never opened is taken back by the operation that made it.
grant delete on catalog.homes, catalog.clusters to tenancy_provisioner;

-- As before, and for `verify`: the call by which the product tries a tenant's data path before it opens it. No token
-- leads to that value of auth; only the product itself can invoke the function past API Gateway.
create or replace function catalog.resolve(claim text, auth text)
returns table (tenant_id uuid, slug text, status text, key_revoked boolean, strategy text, epoch bigint, home_id uuid,
               database_id uuid, database_name name, schema_name name, login name, cluster_id uuid, host text, port integer)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.tenant_id, t.slug, t.status, k.revoked_at is not null, h.strategy, h.epoch, h.home_id,
         h.database_id, h.database_name, h.schema_name, h.login, c.cluster_id, c.host, c.port
    from catalog.tenants t
    left join lateral (
           select * from catalog.homes o
            where o.home_id = t.home_id or auth = 'verify' and o.tenant_id = t.tenant_id and o.state = 'provisioning'
            order by o.state = 'provisioning' desc, o.created_at desc limit 1) h on true
    left join catalog.clusters c on c.cluster_id = h.cluster_id
    left join catalog.api_keys k on auth = concat('key:', k.key_id) and k.tenant_id = t.tenant_id
   where case
           when auth like 'key:%' then t.tenant_id::text = claim and k.key_id is not null
           when auth like 'oidc:%' then
             t.issuer = substr(auth, 6) and t.external_id = claim
             or t.tenant_id::text = claim and coalesce(t.issuer, substr(auth, 6)) = substr(auth, 6)
           when auth = 'verify' then t.tenant_id::text = claim
         end
   order by (t.external_id is not distinct from claim and t.issuer is not distinct from substr(auth, 6)) desc
   limit 1
$$;
