-- Moves of a tenant from one home to another, and of many tenants as one operation. Run as tenancy_keeper.

create table catalog.moves (
  operation_id uuid primary key references catalog.operations,
  tenant_id uuid not null references catalog.tenants,
  -- Without a reference: the home that was left is gone at the end.
  source_home uuid not null,
  target_home uuid not null,
  -- moving: the source is open. switched: the target is, and the source is kept for the way back. reversed: the source is
  -- again. completed, cancelled: only one home is left.
  phase text not null default 'moving' check (phase in ('moving', 'switched', 'reversed', 'completed', 'cancelled')),
  -- What the operator has asked for, and the state machine does as its next step.
  wanted text check (wanted in ('complete', 'reverse', 'cancel', 'pause')),
  -- How long the way back stays open, s.
  window_seconds integer not null check (window_seconds >= 0),
  switched_at timestamptz,
  -- How long writers waited, ms, and what was moved: counts, never rows.
  pause_ms double precision,
  result jsonb,
  -- When both homes were seen to hold the same after the switch. Before that no move completes by itself.
  compared_at timestamptz,
  -- Keys of the rows that differ, as the operator reads them; null again once they don't.
  differs text,
  -- A paused move's execution has ended; the one that goes on has a number of its own.
  paused_at timestamptz,
  resumed_at timestamptz,
  resumptions integer not null default 0,
  -- The operator has said that the other home is lost: it is not compared any more, and what can't be removed there is told and left.
  without_comparison boolean not null default false
);
create index moves_tenant on catalog.moves (tenant_id);

grant select, insert, update on catalog.moves to tenancy_provisioner;

-- The commit point of a move: whose home is open is decided here and nowhere else. All of it or nothing; what the operator has
-- asked for meanwhile is not passed over: before the switch there is time for it.
create function catalog.switch_home(move uuid, from_phase text, to_phase text, tenant uuid, from_home uuid, to_home uuid, to_epoch bigint)
returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform from catalog.moves m where m.operation_id = move and m.phase = from_phase and (from_phase <> 'moving' or m.wanted is null and m.paused_at is null) for update;
  if not found then
    return false;
  end if;
  update catalog.tenants t
     set home_id = to_home, strategy = (select h.strategy from catalog.homes h where h.home_id = to_home), updated_at = now()
   where t.tenant_id = tenant and t.home_id = from_home and t.status = 'active';
  if not found then
    return false;
  end if;
  update catalog.homes h set state = 'moved' where h.home_id = from_home;
  update catalog.homes h set state = 'open', epoch = to_epoch where h.home_id = to_home;
  update catalog.moves m set phase = to_phase, switched_at = now(), wanted = null where m.operation_id = move;
  return true;
end
$$;
grant execute on function catalog.switch_home(uuid, text, text, uuid, uuid, uuid, bigint) to tenancy_provisioner;

-- A migration changes the tables that a move copies. A move does not begin while a run is under way; a run passes over the
-- homes that a move holds, and takes them along the next time.
create function catalog.operations_apart() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtext('catalog.operations_apart'), 0);
  if new.kind = 'move' and exists (select from catalog.operations o where o.kind = 'migrate' and o.state = 'running') then
    raise exception 'a migration is running' using errcode = '23P01', constraint = 'operations_apart';
  end if;
  return new;
end
$$;
create trigger operations_apart before insert on catalog.operations
  for each row when (new.kind in ('move', 'migrate')) execute function catalog.operations_apart();
grant execute on function catalog.operations_apart() to tenancy_provisioner;

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
