-- Moves of a tenant from one home to another. Run as tenancy_keeper.

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
  wanted text check (wanted in ('complete', 'reverse', 'cancel')),
  -- How long the way back stays open, s.
  window_seconds integer not null check (window_seconds >= 0),
  switched_at timestamptz,
  -- How long writers waited, ms, and what was moved: counts, never rows.
  pause_ms double precision,
  result jsonb
);
create index moves_tenant on catalog.moves (tenant_id);

grant select, insert, update on catalog.moves to tenancy_provisioner;

-- The commit point of a move: whose home is open is decided here and nowhere else. All of it or nothing.
create function catalog.switch_home(move uuid, from_phase text, to_phase text, tenant uuid, from_home uuid, to_home uuid, to_epoch bigint)
returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform from catalog.moves m where m.operation_id = move and m.phase = from_phase for update;
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

-- A migration changes the tables that a move copies: the second of them is refused, whichever it is.
create function catalog.operations_apart() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  other text := case new.kind when 'move' then 'migrate' else 'move' end;
begin
  perform pg_advisory_xact_lock(hashtext('catalog.operations_apart'), 0);
  if exists (select from catalog.operations o where o.kind = other and o.state = 'running') then
    raise exception 'a % is running', other using errcode = '23P01', constraint = 'operations_apart';
  end if;
  return new;
end
$$;
create trigger operations_apart before insert on catalog.operations
  for each row when (new.kind in ('move', 'migrate')) execute function catalog.operations_apart();
grant execute on function catalog.operations_apart() to tenancy_provisioner;
