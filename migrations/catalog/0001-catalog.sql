-- The control plane's own knowledge: every tenant, where it lives, and who may ask. Run as tenancy_keeper, in a database
-- of its own, which no tenant's login may connect to. Identifiers (schemas, logins, databases) are made from UUIDs of ours,
-- never from a slug or a claim.

alter default privileges revoke execute on functions from public;

create table catalog.clusters (
  cluster_id uuid primary key,
  kind text not null check (kind in ('shared', 'dedicated')),
  region text not null,
  -- Where calls go (RDS Proxy for a shared cluster), and where the control plane goes (the server itself).
  host text not null,
  port integer not null,
  admin_host text not null,
  admin_port integer not null,
  created_at timestamptz not null default now()
);

create table catalog.tenants (
  tenant_id uuid primary key default gen_random_uuid(),
  slug text not null unique check (length(slug) between 3 and 40 and slug ~ '^[a-z][a-z0-9]*(-[a-z0-9]+)*$'),
  tier text not null check (tier in ('starter', 'pro', 'enterprise')),
  -- The tier gives the default; this decides.
  strategy text not null check (strategy in ('rls', 'schema', 'database')),
  status text not null default 'provisioning'
    check (status in ('provisioning', 'active', 'suspended', 'offboarding', 'offboarded', 'failed')),
  -- With an issuer, only its tokens (and our own API keys) speak for this tenant. external_id is that issuer's own
  -- organisation id, for a provider whose tokens cannot carry ours.
  issuer text,
  external_id text check (length(external_id) between 1 and 200),
  -- The home in use. Null before the first one.
  home_id uuid,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (issuer, external_id),
  check (external_id is null or issuer is not null)
);

create table catalog.homes (
  home_id uuid primary key,
  tenant_id uuid not null references catalog.tenants,
  cluster_id uuid not null references catalog.clusters,
  strategy text not null check (strategy in ('rls', 'schema', 'database')),
  database_name name not null,
  -- Which database it really is: signing keys are derived for this id, so that no other database accepts a context made for it.
  database_id uuid not null,
  schema_name name not null,
  login name not null,
  epoch bigint not null default 1 check (epoch > 0),
  state text not null check (state in ('provisioning', 'open', 'read_only', 'fenced', 'suspended', 'moved')),
  created_at timestamptz not null default now(),
  unique (home_id, tenant_id)
);
create index homes_tenant on catalog.homes (tenant_id);

alter table catalog.tenants add foreign key (home_id, tenant_id) references catalog.homes (home_id, tenant_id) deferrable initially immediate;

create table catalog.api_keys (
  key_id uuid primary key,
  tenant_id uuid not null references catalog.tenants,
  name text not null check (length(name) between 1 and 100),
  scopes text[] not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  revoked_at timestamptz
);
create index api_keys_tenant on catalog.api_keys (tenant_id);

-- From a verified principal to its tenant's home: the only thing that the data plane may ask of the catalog.
-- No row: unknown here, or not this issuer's or this key's tenant; the caller can't tell which.
create function catalog.resolve(claim text, auth text)
returns table (tenant_id uuid, slug text, status text, key_revoked boolean, strategy text, epoch bigint, home_id uuid,
               database_id uuid, database_name name, schema_name name, login name, cluster_id uuid, host text, port integer)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.tenant_id, t.slug, t.status, k.revoked_at is not null, h.strategy, h.epoch, h.home_id,
         h.database_id, h.database_name, h.schema_name, h.login, c.cluster_id, c.host, c.port
    from catalog.tenants t
    left join catalog.homes h on h.home_id = t.home_id
    left join catalog.clusters c on c.cluster_id = h.cluster_id
    left join catalog.api_keys k on auth = concat('key:', k.key_id) and k.tenant_id = t.tenant_id
   where case
           when auth like 'key:%' then t.tenant_id::text = claim and k.key_id is not null
           when auth like 'oidc:%' then
             t.issuer = substr(auth, 6) and t.external_id = claim
             or t.tenant_id::text = claim and coalesce(t.issuer, substr(auth, 6)) = substr(auth, 6)
         end
   -- An organisation id that happens to be a UUID is the issuer's first.
   order by (t.external_id is not distinct from claim and t.issuer is not distinct from substr(auth, 6)) desc
   limit 1
$$;

grant usage on schema catalog to tenancy_catalog_reader, tenancy_provisioner;
grant execute on function catalog.resolve(text, text) to tenancy_catalog_reader;
grant select, insert, update on all tables in schema catalog to tenancy_provisioner;
