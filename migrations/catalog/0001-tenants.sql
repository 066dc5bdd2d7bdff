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
  created_at timestamptz not null default now(),
  -- The database of a shared cluster in which new homes are made.
  database_name name,
  database_id uuid,
  -- Of the shared tables in that database, which are one home for all their tenants: see `homes`.
  schema_version text,
  schema_digest text,
  check ((database_name is null) = (database_id is null))
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
  -- From here on an offboarding can't be undone: the first of the tenant's data may be gone.
  removal_begun_at timestamptz,
  offboarded_at timestamptz,
  -- Two tenants of each strategy in use belong to the product itself: it tries the walls between them every minute. They
  -- are no customers: lists and bills leave them out.
  is_canary boolean not null default false,
  unique (issuer, external_id),
  check (external_id is null or issuer is not null),
  check ((status = 'offboarded') = (offboarded_at is not null))
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
  -- The newest migration, for people and tools.
  schema_version text,
  -- Of every file the home has, the runtime's included; another digest than the release's is what makes a home a target of a
  -- migration. Null: not known, so it is one.
  schema_digest text,
  unique (home_id, tenant_id)
);
create index homes_tenant on catalog.homes (tenant_id);
-- The homes of one database: compared with what that database itself knows, every minute.
create index homes_place on catalog.homes (cluster_id, database_name);

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
-- `verify` is the call by which the product tries a tenant's data path before it opens it. No token leads to that value of auth;
-- only the product itself can invoke the function past API Gateway.
create function catalog.resolve(claim text, auth text)
returns table (tenant_id uuid, slug text, status text, key_revoked boolean, strategy text, epoch bigint, home_id uuid,
               database_id uuid, database_name name, schema_name name, login name, cluster_id uuid, host text, port integer,
               schema_version text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.tenant_id, t.slug, t.status, k.revoked_at is not null, h.strategy, h.epoch, h.home_id,
         h.database_id, h.database_name, h.schema_name, h.login, c.cluster_id, c.host, c.port,
         case when h.schema_name = 'shared' then c.schema_version else h.schema_version end
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
   -- An organisation id that happens to be a UUID is the issuer's first.
   order by (t.external_id is not distinct from claim and t.issuer is not distinct from substr(auth, 6)) desc
   limit 1
$$;

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

-- A tombstone that is just being recorded is waited for. By its id alone: while the offboarding is not committed its row still says
-- another status, so a condition on that would pass it by. Only what is new needs it; what is changed an offboarding deletes,
-- and waits for it.
create function catalog.refuse_offboarded() returns trigger
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
create trigger refuse_offboarded before insert or update on catalog.homes
  for each row execute function catalog.refuse_offboarded();
create trigger refuse_offboarded before insert or update on catalog.api_keys
  for each row execute function catalog.refuse_offboarded();

grant usage on schema catalog to tenancy_catalog_reader, tenancy_provisioner;
grant execute on function catalog.resolve(text, text) to tenancy_catalog_reader;
grant select, insert, update on catalog.tenants to tenancy_provisioner;
-- The canary compares it with the release's.
grant select on catalog._migrations to tenancy_provisioner;
-- A home that never opened is taken back by the operation that made it.
grant select, insert, update, delete on catalog.clusters, catalog.homes, catalog.api_keys to tenancy_provisioner;
