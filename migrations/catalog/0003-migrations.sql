-- The runs that bring every home to another schema. Run as tenancy_keeper.

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
  -- gone: its tenant left while the run was on its way. moving: a move holds it, and it is taken along the next time.
  state text not null default 'pending' check (state in ('pending', 'leased', 'done', 'quarantined', 'pinned', 'gone', 'moving')),
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
