-- Moves of many tenants as one operation. Run as tenancy_keeper.

alter table catalog.operations drop constraint operations_kind_check,
  add constraint operations_kind_check check (kind in ('provision', 'offboard', 'migrate', 'move', 'batch', 'export', 'import'));
create unique index operations_batching on catalog.operations (kind) where kind = 'batch' and state = 'running';

create table catalog.move_batches (
  operation_id uuid primary key references catalog.operations,
  -- So many are before their switch at once.
  concurrency integer not null check (concurrency > 0),
  stops_on_failure boolean not null,
  -- No other tenant's move is begun; those that are under way go on.
  halted_at timestamptz
);

create table catalog.move_batch_tenants (
  operation_id uuid not null references catalog.move_batches,
  tenant_id uuid not null references catalog.tenants,
  place integer not null,
  -- skipped: its move was never begun, and nobody tried.
  state text not null default 'waiting' check (state in ('waiting', 'moving', 'moved', 'failed', 'skipped')),
  move_id uuid references catalog.operations,
  reason text,
  primary key (operation_id, tenant_id)
);

grant select, insert, update on catalog.move_batches, catalog.move_batch_tenants to tenancy_provisioner;
