-- The tenancy runtime: which tenant a transaction belongs to, proved by a signature, and whether its home may be used.
-- Lives in every database that holds tenants. Run as tenancy_keeper, who owns all of it.

-- PostgreSQL lets everybody execute a new function; here nobody may until it is granted.
alter default privileges revoke execute on functions from public;

-- The two halves of each HMAC-SHA256 key, derived from the master key for this database alone. Two rows during a rotation.
create table tenancy.keys (
  key_id text primary key,
  database_id uuid not null,
  inner_pad bytea not null check (octet_length(inner_pad) = 64),
  outer_pad bytea not null check (octet_length(outer_pad) = 64),
  created_at timestamptz not null default now()
);

create table tenancy.homes (
  home_id uuid primary key,
  tenant_id uuid not null,
  -- The one login that may act for this home: a context presented by any other is refused.
  login name not null,
  schema_name name not null,
  epoch bigint not null check (epoch > 0),
  state text not null check (state in ('provisioning', 'open', 'read_only', 'fenced', 'suspended', 'moved')),
  -- The call fence. Random and not derived from a signing key: a rotation must not split the lock.
  lock_key bigint not null default ('x' || encode(substring(uuid_send(gen_random_uuid()) from 9), 'hex'))::bit(64)::bigint,
  -- While true, the capture triggers of this tenant's tables write to tenancy.changes.
  capturing boolean not null default false,
  move_id uuid,
  -- The attempt of a step that may work on this home now. Every attempt takes it for itself before it begins, and every
  -- transaction of it looks: one that was thought dead and wakes up late changes nothing any more.
  mover uuid,
  unique (tenant_id, login)
);

-- Keys of rows that changed while their tenant was being moved; empty otherwise.
create table tenancy.changes (
  change_id bigint generated always as identity primary key,
  tenant_id uuid not null,
  schema_name name not null,
  table_name name not null,
  key jsonb not null
);
-- Several tenants may be moving at once, and a deleted entry stays in the table until it is vacuumed.
create index changes_tenant on tenancy.changes (tenant_id, change_id);

-- Which imports have been carried out here: written in the import's own transaction, so that a repetition of one whose answer
-- was lost finds it.
create table tenancy.imports (
  operation_id uuid primary key,
  tenant_id uuid not null,
  imported_at timestamptz not null default now()
);

-- Where an export that takes several invocations goes on within a large table: the key of the first row of each later part.
-- Here and not in the catalog: a key may hold a tenant's own values.
create table tenancy.exports (
  operation_id uuid not null,
  table_name name not null,
  part integer not null,
  -- It goes with its home.
  home_id uuid not null references tenancy.homes on delete cascade,
  begins_at text[] not null,
  primary key (operation_id, table_name, part)
);
create index exports_home on tenancy.exports (home_id);

grant usage on schema tenancy to tenancy_app, tenancy_tenants, tenancy_owner;
-- The mover reads changed rows with their owner's rights, in the snapshot in which it reads what has changed.
grant select on tenancy.changes to tenancy_owner;
