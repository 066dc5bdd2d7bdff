-- Which schema each home has, and the runs that bring all of them to another one. Run as tenancy_keeper.

-- schema_version: the newest migration, for people and tools. schema_digest: of every file the home has, the runtime's
-- included; another digest than the release's is what makes a home a target. Null: not known, so it is one.
alter table catalog.homes add column schema_version text, add column schema_digest text;
-- Of the shared tables in a shared cluster's database, which are one home for all their tenants.
alter table catalog.clusters add column schema_version text, add column schema_digest text;

-- What an operation came to: counts, never rows.
alter table catalog.operations add column result jsonb;
create unique index operations_migrating on catalog.operations (kind) where kind = 'migrate' and state = 'running';

-- Every file that a home has ever got: one that was edited since is refused before the first home is touched.
create table catalog.migration_files (
  name text primary key,
  checksum text not null,
  applied_at timestamptz not null default now()
);

-- A tenant that stays at a version for a while.
create table catalog.migration_pins (
  tenant_id uuid primary key references catalog.tenants,
  version text not null,
  reason text not null check (length(reason) between 1 and 500),
  until timestamptz not null,
  created_at timestamptz not null default now()
);

create table catalog.migration_runs (
  operation_id uuid primary key references catalog.operations,
  version text not null,
  digest text not null,
  -- More broken homes than these halt the run.
  tolerated integer not null check (tolerated >= 0),
  halted_at timestamptz
);

create table catalog.migration_targets (
  operation_id uuid not null references catalog.migration_runs,
  -- A home; or a shared cluster, whose shared tables are one home.
  target_id uuid not null,
  kind text not null check (kind in ('home', 'shared')),
  ring integer not null,
  -- The database: homes of one batch share it.
  place text not null,
  -- Where it shall be: the run's, or its pin's.
  version text not null,
  digest text not null,
  -- gone: its tenant left while the run was on its way.
  state text not null default 'pending' check (state in ('pending', 'leased', 'done', 'quarantined', 'pinned', 'gone')),
  slot integer,
  -- What a worker that was thought dead no longer has: it can record nothing.
  lease uuid,
  applied text[] not null default '{}',
  reason text,
  started_at timestamptz,
  finished_at timestamptz,
  primary key (operation_id, target_id)
);
create index migration_targets_open on catalog.migration_targets (operation_id, ring, place, target_id) where state in ('pending', 'leased');
create index migration_targets_state on catalog.migration_targets (operation_id, state);

grant select, insert, update on catalog.migration_files, catalog.migration_runs, catalog.migration_targets to tenancy_provisioner;
grant select, insert, update, delete on catalog.migration_pins to tenancy_provisioner;

-- As before, with the schema's version: a tool may say which ones it works with.
drop function catalog.resolve(text, text);
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
grant execute on function catalog.resolve(text, text) to tenancy_catalog_reader;
