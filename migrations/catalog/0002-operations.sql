-- Long-running changes to a tenant, with each step's attempts: what an operator reads when something went wrong, and what
-- a repeated step looks at to know what is already there. Run as tenancy_keeper.

create table catalog.operations (
  operation_id uuid primary key,
  kind text not null check (kind in ('provision', 'offboard', 'migrate', 'move', 'batch', 'export', 'import')),
  tenant_id uuid references catalog.tenants,
  -- cancelled: undone on purpose before it had done harm, which is no failure.
  state text not null default 'running' check (state in ('running', 'done', 'failed', 'cancelled')),
  -- What was asked for, and what was decided at the start: a step reads its parameters here, never from its caller.
  input jsonb not null,
  -- The caller's: the same key with the same request is the same operation, with another request a conflict.
  idempotency_key text unique check (length(idempotency_key) between 1 and 200),
  request_digest text not null,
  failed_step text,
  reason text,
  started_at timestamptz not null default now(),
  finished_at timestamptz,
  -- What it came to: counts, never rows.
  result jsonb
);
-- Two operations on one tenant at once: the second is refused. So is a second run, and a second batch of moves.
create unique index operations_running on catalog.operations (tenant_id) where state = 'running';
create unique index operations_migrating on catalog.operations (kind) where kind = 'migrate' and state = 'running';
create unique index operations_batching on catalog.operations (kind) where kind = 'batch' and state = 'running';
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
